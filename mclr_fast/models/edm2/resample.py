"""Halving and doubling of images, by what is fastest on the device. Source: EDM2, Figure 21, f = (1, 1)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def downsample(x: Tensor) -> Tensor:
    """Mean of 2x2 pixels, [B,C,2H,2W] -> [B,C,H,W].

    Torch's pooling kernels for channels_last take 2 to 5 times as long on a GPU as a reduction of a view,
    forward and backward; on the CPU the reduction takes over ten times as long.
    """
    return F.avg_pool2d(x, 2) if x.device.type == "cpu" else mean_of_view(x)


def upsample(x: Tensor) -> Tensor:
    """Nearest neighbour, [B,C,H,W] -> [B,C,2H,2W]; the same holds here, with factors of about 2."""
    return F.interpolate(x, scale_factor=2, mode="nearest") if x.device.type == "cpu" else copy_of_view(x)


def conv_of_doubled(x: Tensor, weight: Tensor) -> Tensor:
    """conv3x3 of the doubled image, with 16 instead of 36 products for four pixels.

    A 3x3 window of a doubled image holds 2x2 different pixels, and which taps fall on the same one depends on
    the result's row and column being even or odd: its four phases are convolutions of the small image with
    2x2 kernels, whose taps are sums of the large one's. One convolution with 4O results makes all of them,
    on the (H+1) x (W+1) windows of the padded image, of which each phase has its H x W.

    Shapes    x: [B,I,H,W]; weight: [O,I,3,3] -> [B,O,2H,2W], channels_last.
    Dtypes    floating; taps are added up in float32 and rounded once.
    """
    return _JoinPhases.apply(F.conv2d(x, phase_kernels(weight), padding=1))


def phase_kernels(weight: Tensor) -> Tensor:
    """[O,I,3,3] -> [4O,I,2,2], channels_last: output (2 i + j) O + o is phase (i, j) of the large one's o."""
    num_out, num_in = weight.shape[:2]
    taps = weight.permute(0, 2, 3, 1).reshape(num_out, 9, num_in)
    kernels = _sums_of_taps(weight.dtype, weight.device) @ taps
    kernels = kernels.view(num_out, 4, 2, 2, num_in).transpose(0, 1)
    return kernels.reshape(4 * num_out, 2, 2, num_in).permute(0, 3, 1, 2)


@cache
@torch.inference_mode(False)
def _sums_of_taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[16,9]: which taps (a, b) of a 3x3 kernel tap (u, v) of phase (i, j) adds up."""
    axis = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # [i,u,a]
    return torch.einsum("iua,jvb->ijuvab", axis, axis).reshape(16, 9).to(device, dtype)


class _JoinPhases(torch.autograd.Function):
    """[B,4C,H+1,W+1] -> [B,C,2H,2W]: pixel (2 h + i, 2 w + j) is phase (i, j) of window (h + i, w + j)."""

    @staticmethod
    def forward(ctx, windows: Tensor) -> Tensor:
        windows = windows.contiguous(memory_format=torch.channels_last)
        phases = _phases(windows)
        batch, height, _, width, _, channels = phases.shape
        return phases.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        batch, channels, height, width = grad.shape
        shape = (batch, 4 * channels, height // 2 + 1, width // 2 + 1)
        windows = grad.new_empty(shape).contiguous(memory_format=torch.channels_last).zero_()
        _phases(windows).copy_(grad.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2)))
        return windows


def _phases(windows: Tensor) -> Tensor:
    """The pixels of the joined image as they lie in `windows`, channels_last: a view [B,H,2,W,2,C]."""
    batch, channels, height, width = windows.shape
    of_row, of_column = width * channels, channels
    shape = (batch, height - 1, 2, width - 1, 2, channels // 4)
    strides = (height * of_row, of_row, of_row + channels // 2, of_column, of_column + channels // 4, 1)
    return windows.permute(0, 2, 3, 1).as_strided(shape, strides)


def mean_of_view(x: Tensor) -> Tensor:
    """`downsample` as a reduction, channels_last."""
    rows = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return rows.mean(dim=(2, 4)).permute(0, 3, 1, 2)


def copy_of_view(x: Tensor) -> Tensor:
    """`upsample` as one copy, channels_last."""
    rows = x.permute(0, 2, 3, 1)[:, :, None, :, None]
    batch, height, _, width, _, channels = rows.shape
    doubled = rows.expand(batch, height, 2, width, 2, channels)
    return doubled.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
