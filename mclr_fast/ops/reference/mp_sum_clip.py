"""Block exit: residual sum, then clipping."""

from torch import Tensor

from .magnitude_preserving import mp_sum


def mp_sum_clip(a: Tensor, b: Tensor, t: float, clip: float | None = None) -> Tensor:
    """mp_sum(a, b, t), clamped to [-clip, clip] when `clip` is given. Source: EDM2, eq. 88, Fig. 21."""
    x = mp_sum(a, b, t)
    return x if clip is None else x.clamp(-clip, clip)
