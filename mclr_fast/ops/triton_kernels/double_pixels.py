"""Twice the height and width: pixels four times, or phases of a convolution's windows joined; half of it."""

import triton
import triton.language as tl
from torch import Tensor

from ._common import channel_block, channels_last, empty_channels_last, launch, pixel_block


@triton.jit
def _tile(num_pixels, C: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Of this program: its image, pixels [PIXELS,1] of it, channels [1,CHANNELS], and their mask."""
    channel_blocks: tl.constexpr = (C + CHANNELS - 1) // CHANNELS
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    part = tl.program_id(0) // channel_blocks
    spans = tl.cdiv(num_pixels, PIXELS)
    pixel = part % spans * PIXELS + tl.arange(0, PIXELS)[:, None]
    return (part // spans).to(tl.int64), pixel, channel, (pixel < num_pixels) & (channel < C)


@triton.jit
def _place(row, column, height, width, C: tl.constexpr, PHASES: tl.constexpr, PHASE: tl.constexpr):
    """Where pixels of a phase lie in the large image, of these small ones or windows, and which there are."""
    h, w = row - PHASE // 2 * PHASES, column - PHASE % 2 * PHASES
    exists = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    return ((2 * h + PHASE // 2) * 2 * width + 2 * w + PHASE % 2) * C, exists


@triton.jit
def _double_pixels_forward_kernel(
    x,
    out,
    height,
    width,
    scale,
    C: tl.constexpr,
    PHASES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A program reads pixels of the small image, or windows; height and width are the small image's."""
    rows, columns = height + PHASES, width + PHASES
    n, pixel, channel, inside = _tile(rows * columns, C, PIXELS, CHANNELS)
    row, column = pixel // columns, pixel % columns
    small = x + n * rows * columns * C * (1 + 3 * PHASES) + channel
    large = out + n * 4 * height * width * C + channel
    if not PHASES:
        value = scale * tl.load(small + pixel * C, mask=inside, other=0.0).to(tl.float32)
    for phase in tl.static_range(4):
        place, exists = _place(row, column, height, width, C, PHASES, phase)
        if PHASES:
            read = tl.load(small + (pixel * 4 + phase) * C, mask=inside & exists, other=0.0)
            value = scale * read.to(tl.float32)
        tl.store(large + place, value.to(out.dtype.element_ty), mask=inside & exists)


@triton.jit
def _double_pixels_backward_kernel(
    grad,
    grad_x,
    height,
    width,
    scale,
    C: tl.constexpr,
    PHASES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A program writes pixels of the small image's gradient, or windows of the phases'."""
    rows, columns = height + PHASES, width + PHASES
    n, pixel, channel, inside = _tile(rows * columns, C, PIXELS, CHANNELS)
    row, column = pixel // columns, pixel % columns
    small = grad_x + n * rows * columns * C * (1 + 3 * PHASES) + channel
    large = grad + n * 4 * height * width * C + channel
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for phase in tl.static_range(4):
        place, exists = _place(row, column, height, width, C, PHASES, phase)
        value = scale * tl.load(large + place, mask=inside & exists, other=0.0).to(tl.float32)
        if PHASES:
            tl.store(small + (pixel * 4 + phase) * C, value.to(grad_x.dtype.element_ty), mask=inside)
        else:
            total += value
    if not PHASES:
        tl.store(small + pixel * C, total.to(grad_x.dtype.element_ty), mask=inside)


def _launch(kernel, phases: bool, scale: float, large: Tensor, *tensors: Tensor) -> None:
    batch, channels, height, width = large.shape
    height, width = height // 2, width // 2
    lanes, num_pixels = channel_block(channels), (height + phases) * (width + phases)
    pixels = pixel_block(num_pixels, lanes, 2 * large.element_size())
    num_programs = batch * triton.cdiv(num_pixels, pixels) * triton.cdiv(channels, lanes)
    tile = {"PHASES": int(phases), "PIXELS": pixels, "CHANNELS": lanes}
    launch(kernel, num_programs, *tensors, height, width, float(scale), C=channels, **tile)


def _doubled(x: Tensor, phases: bool, scale: float) -> Tensor:
    x = channels_last(x)
    batch, channels, height, width = x.shape
    if phases:
        channels, height, width = channels // 4, height - 1, width - 1
    out = empty_channels_last((batch, channels, 2 * height, 2 * width), x)
    _launch(_double_pixels_forward_kernel, phases, scale, out, x, out)
    return out


def _gathered(grad: Tensor, phases: bool, scale: float) -> Tensor:
    grad = channels_last(grad)
    batch, channels, height, width = grad.shape
    shape = (batch, channels * (4 if phases else 1), height // 2 + phases, width // 2 + phases)
    grad_x = empty_channels_last(shape, grad)
    _launch(_double_pixels_backward_kernel, phases, scale, grad, grad, grad_x)
    return grad_x


def forward(x: Tensor, phases: bool) -> Tensor:
    """The doubled image, channels_last.

    Shapes    x: [B,C,H,W], or [B,4C,H+1,W+1] with `phases` -> [B,C,2H,2W].    Dtypes   any -> same.
    Cost      reads x once, writes the result once.
    """
    return _doubled(x, phases, 1.0)


def backward(grad: Tensor, phases: bool) -> Tensor:
    """x's gradient: sums of four; with `phases`, each at its place and zeros around. Reads 1, writes 1."""
    return _gathered(grad, phases, 1.0)


def halve(x: Tensor) -> Tensor:
    """The mean of every four pixels, [B,C,2H,2W] -> [B,C,H,W] channels_last. Reads 1, writes a quarter."""
    return _gathered(x, False, 0.25)


def halve_backward(grad: Tensor) -> Tensor:
    """A quarter of each of the means' gradients to each of the four."""
    return _doubled(grad, False, 0.25)
