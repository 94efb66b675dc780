"""Decoder entry: concatenate the skip, then mp_silu, both results kept."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import (
    channel_block,
    channels_last,
    empty_channels_last,
    launch,
    mp_silu,
    mp_silu_derivative,
    pixel_block,
)


@triton.jit
def _tile(program, num_pixels, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, WIDTH: tl.constexpr):
    """Image, and the tile's pixels and channels, of one operand's program."""
    channel_blocks: tl.constexpr = (CHANNELS + WIDTH - 1) // WIDTH
    pixel_blocks = tl.cdiv(num_pixels, PIXELS)
    channel = program % channel_blocks * WIDTH + tl.arange(0, WIDTH)[None, :]
    part = program // channel_blocks
    pixel = part % pixel_blocks * PIXELS + tl.arange(0, PIXELS)[:, None]
    return (part // pixel_blocks).to(tl.int64), pixel, channel


@triton.jit
def _forward_part(
    source,
    cat,
    y,
    program,
    scale,
    num_pixels,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Channels FIRST, ..., FIRST + CHANNELS of the results, from one operand."""
    n, pixel, channel = _tile(program, num_pixels, CHANNELS, PIXELS, WIDTH)
    inside = (pixel < num_pixels) & (channel < CHANNELS)
    place = n * num_pixels * CHANNELS + pixel * CHANNELS + channel
    value = scale * tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    silu = mp_silu(value).to(y.dtype.element_ty)
    value = value.to(cat.dtype.element_ty)
    for r in range(R):
        place = (n * R + r) * num_pixels * C + pixel * C + (channel + FIRST)
        tl.store(cat + place, value, mask=inside)
        tl.store(y + place, silu, mask=inside)


@triton.jit
def _backward_part(
    grad_cat,
    grad_y,
    cat,
    grad_source,
    program,
    scale,
    num_pixels,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One operand's gradient, summed over the R rows that share it."""
    n, pixel, channel = _tile(program, num_pixels, CHANNELS, PIXELS, WIDTH)
    inside = (pixel < num_pixels) & (channel < CHANNELS)
    total = tl.zeros((PIXELS, WIDTH), tl.float32)
    for r in range(R):
        place = (n * R + r) * num_pixels * C + pixel * C + (channel + FIRST)
        value = tl.load(cat + place, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(grad_cat + place, mask=inside, other=0.0).to(tl.float32)
        grad_silu = tl.load(grad_y + place, mask=inside, other=0.0).to(tl.float32)
        total += grad_silu * mp_silu_derivative(value)
    place = n * num_pixels * CHANNELS + pixel * CHANNELS + channel
    tl.store(grad_source + place, (scale * total).to(grad_source.dtype.element_ty), mask=inside)


@triton.jit
def _mp_cat_silu_forward_kernel(
    a,
    b,
    cat,
    y,
    scale_a,
    scale_b,
    programs_a,
    num_pixels,
    CA: tl.constexpr,
    CB: tl.constexpr,
    RA: tl.constexpr,
    RB: tl.constexpr,
    PIXELS_A: tl.constexpr,
    PIXELS_B: tl.constexpr,
    WIDTH_A: tl.constexpr,
    WIDTH_B: tl.constexpr,
):
    program = tl.program_id(0)
    C: tl.constexpr = CA + CB
    if program < programs_a:
        _forward_part(a, cat, y, program, scale_a, num_pixels, 0, CA, C, RA, PIXELS_A, WIDTH_A)
    else:
        program -= programs_a
        _forward_part(b, cat, y, program, scale_b, num_pixels, CA, CB, C, RB, PIXELS_B, WIDTH_B)


@triton.jit
def _mp_cat_silu_backward_kernel(
    grad_cat,
    grad_y,
    cat,
    grad_a,
    grad_b,
    scale_a,
    scale_b,
    programs_a,
    num_pixels,
    CA: tl.constexpr,
    CB: tl.constexpr,
    RA: tl.constexpr,
    RB: tl.constexpr,
    PIXELS_A: tl.constexpr,
    PIXELS_B: tl.constexpr,
    WIDTH_A: tl.constexpr,
    WIDTH_B: tl.constexpr,
):
    program = tl.program_id(0)
    C: tl.constexpr = CA + CB
    if program < programs_a:
        _backward_part(
            grad_cat, grad_y, cat, grad_a, program, scale_a, num_pixels, 0, CA, C, RA, PIXELS_A, WIDTH_A
        )
    else:
        program -= programs_a
        _backward_part(
            grad_cat, grad_y, cat, grad_b, program, scale_b, num_pixels, CA, CB, C, RB, PIXELS_B, WIDTH_B
        )


def _launch(kernel, cat: Tensor, t: float, num: tuple[int, int], channels: tuple[int, int], *tensors) -> None:
    num_rows, num_pixels, itemsize = len(cat), cat.shape[2] * cat.shape[3], cat.element_size()
    scale = math.sqrt(sum(channels) / ((1 - t) ** 2 + t**2))
    scales = (scale * (1 - t) / math.sqrt(channels[0]), scale * t / math.sqrt(channels[1]))
    widths = [channel_block(c) for c in channels]
    pixels = [pixel_block(num_pixels, width, itemsize) for width in widths]
    programs = [
        rows * triton.cdiv(num_pixels, height) * triton.cdiv(c, width)
        for rows, height, c, width in zip(num, pixels, channels, widths, strict=True)
    ]
    launch(
        kernel,
        sum(programs),
        *tensors,
        *scales,
        programs[0],
        num_pixels,
        CA=channels[0],
        CB=channels[1],
        RA=num_rows // max(num[0], 1),
        RB=num_rows // max(num[1], 1),
        PIXELS_A=pixels[0],
        PIXELS_B=pixels[1],
        WIDTH_A=widths[0],
        WIDTH_B=widths[1],
    )


def forward(a: Tensor, b: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """(mp_cat(a, b, t), mp_silu of it).

    Shapes    a: [B,Ca,H,W], b: [B,Cb,H,W]; one may have N rows, each shared by B/N
              -> two of [B,Ca+Cb,H,W] channels_last.
    Dtypes    any -> same.      Cost      reads each operand once, writes 2.
    Source    EDM2, eq. 103 and 81.
    """
    a, b = channels_last(a), channels_last(b)
    channels = (a.shape[1], b.shape[1])
    cat = empty_channels_last((max(len(a), len(b)), sum(channels), *a.shape[2:]), a)
    y = torch.empty_like(cat)
    _launch(_mp_cat_silu_forward_kernel, cat, t, (len(a), len(b)), channels, a, b, cat, y)
    return cat, y


def backward(
    grad_cat: Tensor, grad_y: Tensor, cat: Tensor, t: float, num_a: int, num_b: int, channels_a: int
) -> tuple[Tensor, Tensor]:
    """(grad_a, grad_b), a shared operand's summed over its rows. Reads 3, writes each gradient once."""
    grad_cat, grad_y, cat = channels_last(grad_cat), channels_last(grad_y), channels_last(cat)
    channels = (channels_a, cat.shape[1] - channels_a)
    grad_a, grad_b = (
        empty_channels_last((rows, c, *cat.shape[2:]), cat)
        for rows, c in zip((num_a, num_b), channels, strict=True)
    )
    tensors = (grad_cat, grad_y, cat, grad_a, grad_b)
    _launch(_mp_cat_silu_backward_kernel, cat, t, (num_a, num_b), channels, *tensors)
    return grad_a, grad_b
