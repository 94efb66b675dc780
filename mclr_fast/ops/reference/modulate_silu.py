"""Middle of a block: modulate by the embedding, mp_silu, dropout."""

from torch import Tensor

from .magnitude_preserving import mp_silu
from .philox import random_uniform


def modulate_silu(
    y: Tensor, emb: Tensor, dropout: float = 0.0, key: tuple[int, int, Tensor | None] = (0, 0, None)
) -> Tensor:
    """mp_silu(y (1 + emb)), then dropout with Philox's mask of key = (seed, stream, position int64 [B]).

    Shapes    y: [N,C,H,W], image n serving evaluations nR to nR+R-1; emb: [B,C], B = N R, or [1,C].
    Source    EDM2, Figure 21.
    """
    if len(emb) > len(y) > 0:
        y = y.repeat_interleave(len(emb) // len(y), dim=0)
    y = mp_silu(y * (1 + emb).to(y.dtype)[:, :, None, None])
    if dropout == 0:
        return y
    keep = random_uniform(*key, y.shape[1:].numel()).view(y.shape) >= dropout
    return y * keep / (1 - dropout)
