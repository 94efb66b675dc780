"""Entry of a transformer's branch: layer norm, then scale and shift that all tokens of an image share."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import launch, pixel_block, sum_rows, tiles_a_program, token_place

WIDE = 2048
"""Channels from which a row is read by eight warps."""
MOST_TILES, ENOUGH_PROGRAMS = 16, 1024


@triton.jit
def _normalize(x, channel, eps, C: tl.constexpr):
    """(x - mean) rstd of rows, and rstd. The channels after the last one, which are 0, stay it."""
    mean = tl.sum(x, axis=1, keep_dims=True) / C
    x = tl.where(channel < C, x - mean, 0.0)
    variance = tl.sum(x * x, axis=1, keep_dims=True) / C
    rstd = tl.div_rn(tl.full(variance.shape, 1.0, tl.float32), tl.sqrt_rn(variance + eps))
    return x * rstd, rstd


@triton.jit
def _modulate_layer_norm_forward_kernel(
    x,
    scale,
    shift,
    out,
    eps,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    image, span, channel = token_place(num_rows, C, ROWS * TILES, CHANNELS)
    factor = 1 + tl.load(scale + image * C + channel, mask=channel < C, other=0.0)
    offset = tl.load(shift + image * C + channel, mask=channel < C, other=0.0)
    for tile in range(TILES):
        row = (span * TILES + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (row < num_rows) & (channel < C)
        place = (image * num_rows + row) * C + channel
        n, _ = _normalize(tl.load(x + place, mask=inside, other=0.0), channel, eps, C)
        tl.store(out + place, (n * factor + offset).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _modulate_layer_norm_backward_kernel(
    grad,
    x,
    scale,
    grad_x,
    partial,
    eps,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """grad_x = rstd (h - mean(h) - n mean(h n)), h = grad (1 + scale); partial sums of grad n and of grad."""
    image, span, channel = token_place(num_rows, C, ROWS * TILES, CHANNELS)
    factor = 1 + tl.load(scale + image * C + channel, mask=channel < C, other=0.0)
    of_scale = tl.zeros((ROWS, CHANNELS), tl.float32)
    of_shift = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tile in range(TILES):
        row = (span * TILES + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (row < num_rows) & (channel < C)
        place = (image * num_rows + row) * C + channel
        n, rstd = _normalize(tl.load(x + place, mask=inside, other=0.0), channel, eps, C)
        g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        of_scale += g * n
        of_shift += g
        h = g * factor
        mean = tl.sum(h, axis=1, keep_dims=True) / C
        slope = tl.sum(h * n, axis=1, keep_dims=True) / C
        tl.store(grad_x + place, rstd * (h - mean - n * slope), mask=inside)
    place = (image * tl.cdiv(num_rows, ROWS * TILES) + span) * 2 * C + channel
    tl.store(partial + place, tl.sum(of_scale, axis=0, keep_dims=True), mask=channel < C)
    tl.store(partial + place + C, tl.sum(of_shift, axis=0, keep_dims=True), mask=channel < C)


def _constexprs(x: Tensor) -> dict[str, int]:
    """The tile [rows, channels], and how many of them are a program's."""
    num_images, num_rows, channels = x.shape
    lanes = triton.next_power_of_2(channels)
    rows = pixel_block(num_rows, lanes, x.element_size())
    num_tiles = triton.cdiv(num_rows, rows)
    tiles = tiles_a_program(num_images * num_tiles, MOST_TILES, ENOUGH_PROGRAMS)
    return {
        "C": channels,
        "ROWS": rows,
        "TILES": min(tiles, triton.next_power_of_2(max(num_tiles, 1))),
        "CHANNELS": lanes,
        "num_warps": 8 if lanes >= WIDE else 4,
    }


def _num_spans(x: Tensor, constexprs: dict[str, int]) -> int:
    return triton.cdiv(x.shape[1], constexprs["ROWS"] * constexprs["TILES"])


def forward(x: Tensor, scale: Tensor, shift: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """LN(x) (1 + scale) + shift.

    Shapes    x: float32 [B,L,C]; scale, shift: float32 [B,C] -> [B,L,C] of `dtype`.
    Cost      reads x, writes the result; the vectors once a program.
    Source    DiT, section 3.2.
    """
    x, constexprs = x.contiguous(), _constexprs(x)
    out = x.new_empty(x.shape, dtype=dtype)
    programs = len(x) * _num_spans(x, constexprs)
    vectors = scale.contiguous(), shift.contiguous()
    launch(
        _modulate_layer_norm_forward_kernel, programs, x, *vectors, out, float(eps), x.shape[1], **constexprs
    )
    return out


def backward(grad: Tensor, x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(grad_x, grad_scale, grad_shift), float32; the norm is computed again. Reads 2, writes 1.

    The sums over an image's rows are made in two steps of fixed order: a program's in the same pass, the
    programs' in a second, small one.
    """
    grad, x, constexprs = grad.contiguous(), x.contiguous(), _constexprs(x)
    num_images, num_rows, channels = x.shape
    spans = _num_spans(x, constexprs)
    grad_x, partial = x.new_empty(x.shape), x.new_empty(num_images, spans, 2 * channels)
    launch(
        _modulate_layer_norm_backward_kernel,
        num_images * spans,
        grad,
        x,
        scale.contiguous(),
        grad_x,
        partial,
        float(eps),
        num_rows,
        **constexprs,
    )
    grad_scale, grad_shift = sum_rows(partial).chunk(2, dim=1)
    return grad_x, grad_scale.contiguous(), grad_shift.contiguous()
