"""Middle of a block: modulate by the embedding, mp_silu, dropout."""

import torch
from torch import Tensor

from .magnitude_preserving import mp_silu
from .philox import random_uniform


def modulate_silu(
    y: Tensor,
    emb: Tensor,
    dropout: float = 0.0,
    key: tuple[int, int, Tensor] | None = None,
) -> Tensor:
    """mp_silu(y (1 + emb)), then dropout.

    Shapes    y: [B,C,H,W]; emb: [B,C] or [1,C].
    Dropout   with `key` = (seed, stream, position int64 [B]) the mask is Philox's, so equal positions
              (the R labels of an image) share one; without, torch's global generator draws it.
    Source    EDM2, Figure 21.
    """
    y = mp_silu(y * (1 + emb).to(y.dtype)[:, :, None, None])
    if dropout == 0:
        return y
    if key is None:
        return torch.nn.functional.dropout(y, dropout)
    keep = random_uniform(*key, y.shape[1:].numel()).view(y.shape) >= dropout
    return y * keep / (1 - dropout)
