"""-log p of tokens from hidden states, a part of the logits at a time."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # tokens whose logits exist at once


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    coefficients: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of hidden @ weight.T + bias, which is never stored whole.

    Shapes    hidden [...,C]; weight [V,C]; targets int64 [...]; bias [V]; coefficients of targets' first
              dimensions -> float32 [...].
    Dtypes    the product is in hidden's, its logarithm of the sum of exponentials in float32.
    Gradient  hidden, weight, bias; logits are made a second time for it.

    coefficients: what the result's gradient will be, where it is known. Nothing is made of them here.
    """
    weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)

    def nll(part: Tensor, weight: Tensor, bias: Tensor | None, wanted: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(part, weight, bias).float(), wanted, reduction="none")

    rows, tokens = hidden.flatten(0, -2), targets.flatten()
    parts = zip(rows.split(CHUNK), tokens.split(CHUNK), strict=True)
    again = partial(checkpoint, nll, use_reentrant=False, preserve_rng_state=False)
    made = [again(part, weight, bias, wanted) for part, wanted in parts]
    return torch.cat(made).view(targets.shape)
