"""Effective weights of magnitude-preserving convolutions."""

import math

import torch
from torch import Tensor

from .magnitude_preserving import normalize


def weight_norm_scale(weight: Tensor, gain: Tensor | float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
    """normalize(weight per output channel) gain / sqrt(fan_in), in float32, then cast.

    Shapes    weight: [out, in, ...] -> same; gain: number or [1].
    Source    EDM2, eq. 47.
    """
    w = normalize(weight.float())
    return (w * (gain / math.sqrt(weight.shape[1:].numel()))).to(dtype or weight.dtype)
