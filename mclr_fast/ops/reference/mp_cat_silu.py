"""Decoder entry: concatenate the skip, then mp_silu, both results kept."""

from torch import Tensor

from .magnitude_preserving import mp_cat, mp_silu


def mp_cat_silu(a: Tensor, b: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """(mp_cat(a, b, t), mp_silu of it). a: [B,Na,H,W], b: [B,Nb,H,W]. Source: EDM2, eq. 103 and 81."""
    x = mp_cat(a, b, t)
    return x, mp_silu(x)
