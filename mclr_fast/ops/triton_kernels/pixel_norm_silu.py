"""Encoder entry: pixel norm, then mp_silu, both results kept."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import (
    channels_last,
    launch,
    mp_silu,
    mp_silu_derivative,
    pixel_block,
    pixel_norm_backward,
    pixel_norm_scale,
)


@triton.jit
def _tile(num_rows, C: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Offsets and mask of this program's pixels, all channels of each."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    return row * C + channel, (row < num_rows) & (channel < C)


@triton.jit
def _pixel_norm_silu_forward_kernel(
    x, n, y, num_rows, C: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    offset, inside = _tile(num_rows, C, ROWS, CHANNELS)
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
    _, inverse = pixel_norm_scale(tl.sum(value * value, axis=1, keep_dims=True), C)
    value *= inverse
    tl.store(n + offset, value.to(n.dtype.element_ty), mask=inside)
    tl.store(y + offset, mp_silu(value).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _pixel_norm_silu_backward_kernel(
    grad_n, grad_y, x, grad_x, num_rows, C: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    offset, inside = _tile(num_rows, C, ROWS, CHANNELS)
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_n + offset, mask=inside, other=0.0).to(tl.float32)
    grad_silu = tl.load(grad_y + offset, mask=inside, other=0.0).to(tl.float32)
    rms, inverse = pixel_norm_scale(tl.sum(value * value, axis=1, keep_dims=True), C)
    grad += grad_silu * mp_silu_derivative(value * inverse)
    along = tl.sum(grad * value, axis=1, keep_dims=True)
    result = pixel_norm_backward(grad, value, rms, inverse, along, C)
    tl.store(grad_x + offset, result.to(grad_x.dtype.element_ty), mask=inside)


def _launch(kernel, like: Tensor, *tensors: Tensor) -> None:
    num_images, channels, height, width = like.shape
    num_rows = num_images * height * width
    lanes = triton.next_power_of_2(channels)
    rows = pixel_block(num_rows, lanes, like.element_size())
    launch(kernel, triton.cdiv(num_rows, rows), *tensors, num_rows, C=channels, ROWS=rows, CHANNELS=lanes)


def forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """n = x / (1e-4 + rms over channels), and mp_silu(n).

    Shapes    x: [N,C,H,W] -> two of that shape, channels_last.         Dtypes   any -> same.
    Cost      reads 1, writes 2.            Source    EDM2, eq. 47 and 81.
    """
    x = channels_last(x)
    n, y = torch.empty_like(x), torch.empty_like(x)
    _launch(_pixel_norm_silu_forward_kernel, x, x, n, y)
    return n, y


def backward(grad_n: Tensor, grad_y: Tensor, x: Tensor) -> Tensor:
    """grad_x; the norm is computed again. Reads 3, writes 1."""
    grad_n, grad_y, x = channels_last(grad_n), channels_last(grad_y), channels_last(x)
    grad_x = torch.empty_like(x)
    _launch(_pixel_norm_silu_backward_kernel, x, grad_n, grad_y, x, grad_x)
    return grad_x
