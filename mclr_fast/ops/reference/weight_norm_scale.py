"""Effective weights of magnitude-preserving convolutions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .magnitude_preserving import normalize


def weight_norm_scale(
    weights: Sequence[Tensor], gains: Sequence[Tensor | None], dtypes: Sequence[torch.dtype]
) -> list[Tensor]:
    """normalize(weight per output channel) gain / sqrt(fan_in) of each, in float32, then cast.

    Shapes    weights: [out, in, ...] -> same, 4-dim ones channels_last; gains: [1] or None = 1.
    Source    EDM2, eq. 47.
    """
    made = []
    for weight, gain, dtype in zip(weights, gains, dtypes, strict=True):
        scale = (1 if gain is None else gain) / math.sqrt(weight.shape[1:].numel())
        effective = (normalize(weight.to(torch.promote_types(weight.dtype, torch.float32))) * scale).to(dtype)
        made.append(
            effective.contiguous(memory_format=torch.channels_last) if effective.ndim == 4 else effective
        )
    return made
