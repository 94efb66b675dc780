"""Guidance: a denoiser is pushed away from a weaker, guiding one, which may be itself without a class."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`net(x [N,C,H,W], sigma [], labels or None) -> D(x; sigma, labels) [N,C,H,W]`."""


class Unconditional:
    """`net` with the zero label vector (label -1) for every sample, whatever labels it is given.

    As `gnet` it lets a net trained with label dropout guide itself (classifier-free guidance).
    """

    def __init__(self, net: Denoiser) -> None:
        """`net` is called, not copied."""
        self.net = net

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, **options) -> Tensor:
        """What `net` gives without a class; `labels` are ignored."""
        no_class = torch.full((x.shape[0],), -1, dtype=torch.int64, device=x.device)
        return self.net(x, sigma, no_class, **options)


def network_output(net: Denoiser) -> tuple[float, torch.dtype] | None:
    """(sigma_data, dtype) of a net that gives its raw output F of a scaled input; None for any other."""
    net = net.net if isinstance(net, Unconditional) else net
    if hasattr(net, "sigma_data") and hasattr(net, "dtype"):
        return net.sigma_data, net.dtype
    return None
