"""Encoder entry: pixel norm, then mp_silu, both results kept."""

from torch import Tensor

from .magnitude_preserving import mp_silu, normalize


def pixel_norm_silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """(x / (1e-4 + rms over channels), mp_silu of it). x: [B,C,H,W]. Source: EDM2, eq. 47 and 81."""
    x = normalize(x, dim=1)
    return x, mp_silu(x)
