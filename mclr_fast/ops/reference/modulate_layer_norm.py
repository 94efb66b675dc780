"""Entry of a transformer's branch: layer norm, modulated by what the class gives."""

import torch
from torch import Tensor
from torch.nn import functional as F


def modulate_layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """LN(x) (1 + scale) + shift in `dtype`; x: [B,L,C], scale, shift: [B,C]. Source: DiT, section 3.2."""
    normalized = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift.unsqueeze(1), normalized, 1 + scale.unsqueeze(1)).to(dtype)
