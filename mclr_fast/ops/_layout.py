"""Memory formats and dtypes of the tensors that the kernels read and write: activations are channels_last."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """x [B,C,H,W] with channels_last strides; itself if it has them."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_images(like: Tensor, num_images: int | None = None, channels: int | None = None) -> Tensor:
    """An uninitialised channels_last tensor of `like`'s size where none is given, dtype and device."""
    shape = (
        like.shape[0] if num_images is None else num_images,
        like.shape[1] if channels is None else channels,
        *like.shape[2:],
    )
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def as_float32(*tensors: Tensor | None) -> list[Tensor | None]:
    """Each in float32; None stays None. A call of .float() costs more than to see that there is no need."""
    return [x if x is None or x.dtype is torch.float32 else x.float() for x in tensors]


def num_pixels(x: Tensor) -> int:
    """H W of x [B,C,H,W]."""
    return x.shape[2] * x.shape[3]
