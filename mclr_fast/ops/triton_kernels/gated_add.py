"""Exit of a transformer's branch: x + gate y, with a gate that all tokens of an image share."""

import triton
import triton.language as tl
from torch import Tensor

from ._common import channel_block, launch, sum_rows, tiles_a_program, token_place

NUM_WARPS = 4
ELEMENTS = 8
"""Of a tile, a thread's."""
MOST_TILES, ENOUGH_PROGRAMS = 8, 2048


@triton.jit
def _gated_add_forward_kernel(
    x,
    y,
    gate,
    out,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    image, span, channel = token_place(num_rows, C, ROWS * TILES, CHANNELS)
    factor = tl.load(gate + image * C + channel, mask=channel < C, other=0.0)
    for tile in range(TILES):
        row = (span * TILES + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (row < num_rows) & (channel < C)
        place = (image * num_rows + row) * C + channel
        branch = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        stream = tl.load(x + place, mask=inside, other=0.0)
        tl.store(out + place, stream + factor * branch, mask=inside)


@triton.jit
def _gated_add_backward_kernel(
    grad,
    y,
    gate,
    grad_y,
    partial,
    num_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The sums over rows for the gate's gradient: thread by thread over TILES tiles, then once."""
    image, span, channel = token_place(num_rows, C, ROWS * TILES, CHANNELS)
    factor = tl.load(gate + image * C + channel, mask=channel < C, other=0.0)
    sums = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tile in range(TILES):
        row = (span * TILES + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (row < num_rows) & (channel < C)
        place = (image * num_rows + row) * C + channel
        g = tl.load(grad + place, mask=inside, other=0.0)
        sums += g * tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_y + place, (g * factor).to(grad_y.dtype.element_ty), mask=inside)
    place = (image * tl.cdiv(num_rows, ROWS * TILES) + span) * C + channel
    tl.store(partial + place, tl.sum(sums, axis=0, keep_dims=True), mask=channel < C)


def _constexprs(x: Tensor) -> dict[str, int]:
    """The tile [rows, channels], and how many of them are a program's."""
    num_images, num_rows, channels = x.shape
    width = channel_block(channels)
    rows = min(32 * NUM_WARPS * ELEMENTS // width, triton.next_power_of_2(max(num_rows, 1)))
    num_tiles = triton.cdiv(num_rows, rows)
    programs = num_images * num_tiles * triton.cdiv(channels, width)
    tiles = tiles_a_program(programs, MOST_TILES, ENOUGH_PROGRAMS)
    return {
        "C": channels,
        "ROWS": rows,
        "TILES": min(tiles, triton.next_power_of_2(max(num_tiles, 1))),
        "CHANNELS": width,
        "num_warps": NUM_WARPS,
    }


def _programs(x: Tensor, constexprs: dict[str, int]) -> tuple[int, int]:
    """How many programs there are, and spans of an image's rows."""
    spans = triton.cdiv(x.shape[1], constexprs["ROWS"] * constexprs["TILES"])
    return len(x) * spans * triton.cdiv(x.shape[2], constexprs["CHANNELS"]), spans


def forward(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate y.

    Shapes    x: float32 [B,L,C]; y: [B,L,C]; gate: float32 [B,C] -> float32 [B,L,C].
    Cost      reads x and y, writes the result.          Source    DiT, section 3.2.
    """
    x, y, constexprs = x.contiguous(), y.contiguous(), _constexprs(x)
    out, (programs, _) = x.new_empty(x.shape), _programs(x, constexprs)
    launch(_gated_add_forward_kernel, programs, x, y, gate.contiguous(), out, x.shape[1], **constexprs)
    return out


def backward(grad: Tensor, y: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """(grad_y, grad_gate float32). Reads 2, writes 1; sums as `modulate_layer_norm.backward` makes them."""
    grad, y, constexprs = grad.contiguous(), y.contiguous(), _constexprs(y)
    programs, spans = _programs(y, constexprs)
    grad_y, partial = y.new_empty(y.shape), gate.new_empty(len(y), spans, y.shape[2])
    launch(
        _gated_add_backward_kernel,
        programs,
        grad,
        y,
        gate.contiguous(),
        grad_y,
        partial,
        y.shape[1],
        **constexprs,
    )
    return grad_y, sum_rows(partial)
