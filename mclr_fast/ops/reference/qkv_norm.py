"""Cosine attention's operands from the joint projection."""

from torch import Tensor

from .magnitude_preserving import normalize


def qkv_norm(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split and pixel-normalise q, k and v.

    Shapes    qkv: [B, 3C, H, W], channel = head * 3d + c * 3 + {0: q, 1: k, 2: v}, d = C / heads
              -> three of [B, heads, HW, d].
    Source    EDM2, Figure 21 (cosine attention).
    """
    parts = qkv.flatten(2).unflatten(1, (num_heads, -1, 3))
    q, k, v = normalize(parts, dim=2).unbind(3)
    return q.transpose(-1, -2), k.transpose(-1, -2), v.transpose(-1, -2)
