"""Memory formats and dtypes of the tensors that the kernels read and write: activations are channels_last."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """x [B,C,H,W] with channels_last strides; itself if it has them."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_images(like: Tensor, num_images: int | None = None, channels: int | None = None) -> Tensor:
    """An uninitialised channels_last tensor of `like`'s size where none is given, dtype and device."""
    if num_images is None and channels is None:
        return torch.empty_like(like, memory_format=torch.channels_last)
    rows, width, height, length = like.shape
    rows, width = rows if num_images is None else num_images, width if channels is None else channels
    return empty_channels_last(like, (rows, width, height, length), like.dtype)


def empty_channels_last(like: Tensor, shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """An uninitialised channels_last tensor on `like`'s device."""
    _, channels, height, width = shape
    strides = height * width * channels, 1, width * channels, channels
    return like.new_empty_strided(shape, strides, dtype=dtype)


def as_float32(*tensors: Tensor | None) -> list[Tensor | None]:
    """Each in float32; None stays None. A call of .float() costs more than to see that there is no need."""
    return [x if x is None or x.dtype is torch.float32 else x.float() for x in tensors]
