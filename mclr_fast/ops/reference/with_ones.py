"""The form in which the network takes its input."""

import torch
from torch import Tensor


def with_ones(scaled: Tensor, dtype: torch.dtype) -> Tensor:
    """c_in x in the network's dtype, a channel of ones behind it. [B,C,H,W] -> [B,C+1,H,W] channels_last."""
    scaled = scaled.to(dtype)
    scaled = torch.cat([scaled, torch.ones_like(scaled[:, :1])], dim=1)
    return scaled.contiguous(memory_format=torch.channels_last)
