"""The frozen network that an objective compares with."""

from __future__ import annotations

import torch
from torch import Tensor

from mclr_fast.models.edm2 import DropoutKey, EffectiveWeights, Precond, force_weight_norm_


class Reference:
    """A network of the policy's architecture and dtype whose weights never change again.

    Its effective weights are made once and stay, in place of the parameters. Built anew from a file, never
    copied from the trained module, which may be sharded.
    """

    def __init__(self, net: Precond):
        """net: on its device; it becomes this object's own."""
        force_weight_norm_(net)  # as the policy's weights are from its first step: so both start equal
        self.net = net.eval().requires_grad_(False)
        EffectiveWeights(self.net).keep()

    @torch.no_grad()
    def __call__(
        self, net_input: Tensor, sigma: Tensor, labels: Tensor, dropout_key: DropoutKey | None = None
    ) -> Tensor:
        """The raw outputs F of these evaluations; dropout_key: the policy's masks, where it has any."""
        self.net.dropout_key = dropout_key
        self.net.train(dropout_key is not None)  # only dropout depends on it
        return self.net(net_input, sigma, labels, output="network")
