"""Middle of a block: modulate by the embedding, mp_silu, dropout; R results of one shared activation."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import (
    NOT_SPECIALIZED,
    channel_block,
    channels_last,
    empty_channels_last,
    interleave_pixels,
    launch,
    mp_silu,
    mp_silu_derivative,
    random_words,
    seed_words,
    sum_rows,
    tiles_a_program,
    uniform,
)

NUM_WARPS = 4
MOST_TILES = 8
ENOUGH_PROGRAMS = 2048
"""Programs that keep a large GPU busy: with more of them, each sums over several tiles first."""


@triton.jit
def _keep(
    key, position, dropout, first_pixel, channel, num_pixels, PIXELS: tl.constexpr, ALIGNED: tl.constexpr
):
    """Dropout's mask of a tile [rows, PIXELS, channels]; ALIGNED where four pixels share a Philox block."""
    if ALIGNED:
        quad = first_pixel // 4 + tl.arange(0, PIXELS // 4)[None, :, None]
        block = channel * (num_pixels // 4) + quad
        w0, w1, w2, w3 = random_words(key[0], key[1], key[2], position, block)
        keep = interleave_pixels(
            (uniform(w0) >= dropout).to(tl.int8),
            (uniform(w1) >= dropout).to(tl.int8),
            (uniform(w2) >= dropout).to(tl.int8),
            (uniform(w3) >= dropout).to(tl.int8),
        )
        return keep != 0
    else:
        element = channel * num_pixels + first_pixel + tl.arange(0, PIXELS)[None, :, None]
        w0, w1, w2, w3 = random_words(key[0], key[1], key[2], position, element // 4)
        lane = element % 4
        word = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
        return uniform(word) >= dropout


@triton.jit
def _place(
    num_pixels,
    C: tl.constexpr,
    R: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Of this program: its image, span of pixels, channels [1,1,CHANNELS], rows [ROWS,1,1] and their mask."""
    channel_blocks: tl.constexpr = (C + CHANNELS - 1) // CHANNELS
    spans = tl.cdiv(num_pixels, SPAN)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    part = tl.program_id(0) // channel_blocks
    n = (part // spans).to(tl.int64)
    r = tl.arange(0, ROWS)[:, None, None]
    return n, part % spans, channel, n * R + r, r < R


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _modulate_silu_forward_kernel(
    y,
    emb,
    position,
    out,
    seed_low,
    seed_high,
    stream,
    dropout,
    num_pixels,
    C: tl.constexpr,
    R: tl.constexpr,
    EMB_SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    n, span, channel, row, exists = _place(num_pixels, C, R, ROWS, PIXELS, CHANNELS)
    pixel = span * PIXELS + tl.arange(0, PIXELS)[None, :, None]
    inside = (pixel < num_pixels) & (channel < C)
    offset = pixel * C + channel
    size = num_pixels * C
    value = tl.load(y + n * size + offset, mask=inside, other=0.0).to(tl.float32)
    modulation = tl.load(
        emb + (0 if EMB_SHARED else row * C) + channel, mask=exists & (channel < C), other=0.0
    )
    result = mp_silu(value * (1 + modulation))
    if position is not None:
        at = tl.load(position + row, mask=exists, other=0)
        key = (seed_low, seed_high, stream)
        keep = _keep(key, at, dropout, span * PIXELS, channel, num_pixels, PIXELS, ALIGNED)
        result = tl.where(keep, result / (1 - dropout), 0.0)
    tl.store(out + row * size + offset, result.to(out.dtype.element_ty), mask=inside & exists)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _modulate_silu_backward_kernel(
    grad,
    y,
    emb,
    position,
    grad_y,
    partial,
    seed_low,
    seed_high,
    stream,
    dropout,
    num_pixels,
    C: tl.constexpr,
    R: tl.constexpr,
    EMB_SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ALIGNED: tl.constexpr,
    TILES: tl.constexpr,
):
    """The sums over pixels for the embedding's gradient: thread by thread over TILES tiles, then once."""
    n, span, channel, row, exists = _place(num_pixels, C, R, ROWS, PIXELS * TILES, CHANNELS)
    size = num_pixels * C
    modulation = 1 + tl.load(
        emb + (0 if EMB_SHARED else row * C) + channel, mask=exists & (channel < C), other=0.0
    )
    if position is not None:
        at = tl.load(position + row, mask=exists, other=0)
    sums = tl.zeros((ROWS, PIXELS, CHANNELS), tl.float32)
    for tile in range(TILES):
        first = (span * TILES + tile) * PIXELS
        pixel = first + tl.arange(0, PIXELS)[None, :, None]
        inside = (pixel < num_pixels) & (channel < C)
        offset = pixel * C + channel
        slope = tl.load(grad + row * size + offset, mask=inside & exists, other=0.0).to(tl.float32)
        value = tl.load(y + n * size + offset, mask=inside, other=0.0).to(tl.float32)
        slope *= mp_silu_derivative(value * modulation)
        if position is not None:
            key = (seed_low, seed_high, stream)
            keep = _keep(key, at, dropout, first, channel, num_pixels, PIXELS, ALIGNED)
            slope = tl.where(keep, slope / (1 - dropout), 0.0)
        total = tl.sum(slope * modulation, axis=0, keep_dims=True)
        tl.store(grad_y + n * size + offset, total.to(grad_y.dtype.element_ty), mask=inside)
        sums += slope * value
    place = (row * tl.cdiv(num_pixels, PIXELS * TILES) + span) * C + channel
    tl.store(partial + place, tl.sum(sums, axis=1, keep_dims=True), mask=exists & (channel < C))


def _num_rows(y: Tensor, emb: Tensor) -> int:
    return len(y) if len(emb) == 1 else len(emb)


def _constexprs(y: Tensor, emb: Tensor, elements: int) -> dict[str, int]:
    """The tile [rows, pixels, channels], `elements` of it a thread; all rows of an image are in one."""
    num_pixels, channels = y.shape[2] * y.shape[3], y.shape[1]
    num_rows = _num_rows(y, emb) // max(len(y), 1)
    width, rows = channel_block(channels), triton.next_power_of_2(max(num_rows, 1))
    pixels = max(1, min(32 * NUM_WARPS * elements // (rows * width), triton.next_power_of_2(num_pixels)))
    return {
        "C": channels,
        "R": num_rows,
        "EMB_SHARED": len(emb) == 1,
        "ROWS": rows,
        "PIXELS": pixels,
        "CHANNELS": width,
        "ALIGNED": num_pixels % 4 == 0 and pixels % 4 == 0,
        "num_warps": NUM_WARPS,
    }


def forward(
    y: Tensor, emb: Tensor, dropout: float, seed: int, stream: int, position: Tensor | None
) -> Tensor:
    """mp_silu(y (1 + emb)), then dropout.

    Shapes    y: [N,C,H,W], shared by the R = B/N rows of an image; emb: float32 [B,C] or [1,C];
              position: int64 [B] (None without dropout) -> [B,C,H,W] channels_last.
    Dtypes    any y -> same.                 Cost      reads y once, writes B rows once.
    Source    EDM2, Figure 21.
    """
    y, emb = channels_last(y), emb.contiguous()
    num_images, channels, height, width = y.shape
    out = empty_channels_last((_num_rows(y, emb), channels, height, width), y)
    constexprs = _constexprs(y, emb, 32 // y.element_size())
    num_blocks = triton.cdiv(height * width, constexprs["PIXELS"])
    launch(
        _modulate_silu_forward_kernel,
        num_images * num_blocks * triton.cdiv(channels, constexprs["CHANNELS"]),
        y,
        emb,
        position.contiguous() if dropout else None,
        out,
        *seed_words(seed),
        stream,
        float(dropout),
        height * width,
        **constexprs,
    )
    return out


def backward(
    grad: Tensor,
    y: Tensor,
    emb: Tensor,
    dropout: float,
    seed: int,
    stream: int,
    position: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(grad_y summed over the R rows of an image, grad_emb float32 in emb's shape).

    Reads grad and y once, writes grad_y once. The sums over pixels for grad_emb are made in two steps of
    fixed order: a tile's in the same pass, the tiles' in a second, small one.
    """
    grad, y, emb = channels_last(grad), channels_last(y), emb.contiguous()
    num_images, channels, height, width = y.shape
    num_rows = _num_rows(y, emb)
    grad_y = torch.empty_like(y)
    elements = 4 * y.element_size()  # in half precision ptxas spills two registers of 16 on sm_100
    constexprs = _constexprs(y, emb, elements)
    tile, channel_blocks = constexprs["PIXELS"], triton.cdiv(channels, constexprs["CHANNELS"])
    programs = num_images * channel_blocks * triton.cdiv(height * width, tile)
    tiles = tiles_a_program(programs, MOST_TILES, ENOUGH_PROGRAMS)
    num_blocks = triton.cdiv(height * width, tile * tiles)
    partial = torch.empty((num_rows, num_blocks, channels), dtype=torch.float32, device=y.device)
    launch(
        _modulate_silu_backward_kernel,
        num_images * num_blocks * channel_blocks,
        grad,
        y,
        emb,
        position.contiguous() if dropout else None,
        grad_y,
        partial,
        *seed_words(seed),
        stream,
        float(dropout),
        height * width,
        **constexprs,
        TILES=tiles,
    )
    grad_emb = sum_rows(partial)
    if len(emb) == 1:
        grad_emb = sum_rows(grad_emb[None])
    return grad_y, grad_emb
