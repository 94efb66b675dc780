"""Convolutions of doubled images. Source: EDM2, Figure 21, whose images are resampled with f = (1, 1)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mclr_fast import ops


def conv_of_doubled(x: Tensor, weight: Tensor) -> Tensor:
    """conv3x3 of the doubled image, with 16 instead of 36 products for four pixels.

    A 3x3 window of a doubled image holds 2x2 different pixels, and which taps fall on the same one depends on
    the result's row and column being even or odd: its four phases are convolutions of the small image with
    2x2 kernels, whose taps are sums of the large one's. One convolution with 4O results makes all of them,
    on the (H+1) x (W+1) windows of the padded image, of which each phase has its H x W.

    Shapes    x: [B,I,H,W]; weight: [O,I,3,3] -> [B,O,2H,2W].
    Dtypes    floating; taps are added up in float32 and rounded once.
    """
    return ops.double_pixels(F.conv2d(x, phase_kernels(weight), padding=1), phases=True)


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
