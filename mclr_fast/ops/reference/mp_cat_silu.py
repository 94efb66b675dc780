"""Decoder entry: concatenate the skip, then mp_silu, both results kept."""

from torch import Tensor

from .magnitude_preserving import mp_cat, mp_silu
from .mp_sum_clip import expand_shared


def mp_cat_silu(a: Tensor, b: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """(mp_cat(a, b, t), mp_silu of it). a: [B,Ca,H,W], b: [B,Cb,H,W]. Source: EDM2, eq. 103 and 81."""
    x = mp_cat(*expand_shared(a, b), t)
    return x, mp_silu(x)
