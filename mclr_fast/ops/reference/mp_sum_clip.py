"""Block exit: residual sum, then clipping."""

from torch import Tensor

from .magnitude_preserving import mp_silu, mp_sum


def expand_shared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a and b with equally many rows: row b of a result reads row b // R of a shared operand."""
    if len(a) < len(b):
        a = a.repeat_interleave(len(b) // len(a), dim=0)
    if len(b) < len(a):
        b = b.repeat_interleave(len(a) // len(b), dim=0)
    return a, b


def mp_sum_clip(a: Tensor, b: Tensor, t: float, clip: float | None = None) -> Tensor:
    """mp_sum(a, b, t), clamped to [-clip, clip] when `clip` is given. Source: EDM2, eq. 88, Fig. 21."""
    x = mp_sum(*expand_shared(a, b), t)
    return x if clip is None else x.clamp(-clip, clip)


def mp_sum_clip_silu(a: Tensor, b: Tensor, t: float, clip: float | None = None) -> tuple[Tensor, Tensor]:
    """mp_sum_clip(a, b, t, clip), and mp_silu of it. Source: EDM2, eq. 88 and 81."""
    x = mp_sum_clip(a, b, t, clip)
    return x, mp_silu(x)
