"""What the Triton kernels share: launching, tile shapes, Philox, mp_silu, tokens, sums over rows."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

EPS = tl.constexpr(1e-4)
SILU_GAIN = tl.constexpr(1 / 0.596)
_UNIT_24 = tl.constexpr(2.0**-24)
_TURN_24 = tl.constexpr(2 * math.pi * 2.0**-24)

NOT_SPECIALIZED = ["seed_low", "seed_high", "stream"]
"""Arguments whose value must not cause another compilation."""


class Launch(NamedTuple):
    """One kernel launch: the jit function, its arguments by name (constexprs among them), grid, warps."""

    name: str
    kernel: Any
    arguments: dict[str, Any]
    grid: tuple[int, ...]
    num_warps: int


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Inside, launches are appended to the yielded list instead of run; tensors may be on "meta"."""
    global _recorded
    outer, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = outer


def launch(kernel: Any, num_programs: int, *arguments: Any, num_warps: int = 4, **constexprs: Any) -> None:
    """Run `num_programs` programs of a kernel on the device of its first argument; none if it is 0."""
    if num_programs == 0:
        return
    if _recorded is not None:
        bound = dict(zip(kernel.arg_names, arguments, strict=False)) | constexprs
        assert list(bound) == kernel.arg_names, (list(bound), kernel.arg_names)
        _recorded.append(Launch(kernel.__name__, kernel, bound, (num_programs,), num_warps))
        return
    with torch.cuda.device_of(arguments[0]):
        kernel[(num_programs,)](*arguments, num_warps=num_warps, **constexprs)


def seed_words(seed: int) -> tuple[int, int]:
    """A seed's low and high 32 bits as signed numbers, so that a kernel always gets int32."""
    return tuple((word & 0xFFFFFFFF ^ 0x80000000) - 0x80000000 for word in (seed, seed >> 32))


def channels_last(x: Tensor) -> Tensor:
    """`x` with its channels next to each other in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_channels_last(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised activation on the device of `like`, in its dtype unless another is given."""
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last
    )


def own_format(x: Tensor) -> torch.memory_format:
    """The memory format that a 4-D tensor is in; channels_last if it is in neither."""
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def channel_block(num_channels: int) -> int:
    """Width of a channel tile: the widest power of two, 256 at most, that leaves few of its lanes idle."""
    widths = [w for w in (256, 128, 64, 32) if triton.cdiv(num_channels, w) * w <= 1.125 * num_channels]
    return widths[0] if widths else min(triton.next_power_of_2(num_channels), 256)


def pixel_block(num_pixels: int, num_lanes: int, itemsize: int) -> int:
    """Height of a tile of `num_lanes` columns; each thread of 4 warps gets 32 bytes: two accesses of 16."""
    height = 4 * 32 * 32 // itemsize // num_lanes
    return max(1, min(height, triton.next_power_of_2(num_pixels)))


def tiles_a_program(num_tiles: int, most: int, enough: int) -> int:
    """How many tiles a program takes one after another: a power of two, `most` at most, that leaves about
    `enough` programs or more."""
    return max(1, min(most, triton.next_power_of_2(num_tiles // enough + 1) // 2))


@triton.jit
def mp_silu(x):
    """silu(x) / 0.596. Source: EDM2, eq. 81."""
    return x * tl.sigmoid(x) * SILU_GAIN


@triton.jit
def mp_silu_derivative(x):
    """d mp_silu / d x."""
    sigmoid = tl.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid)) * SILU_GAIN


@triton.jit
def pixel_norm_scale(sum_squares, C: tl.constexpr):
    """(rms, 1 / (EPS + rms)). They are one a pixel, so the exact root and quotient cost nothing."""
    rms = tl.sqrt_rn(sum_squares / C)
    return rms, tl.div_rn(tl.full(rms.shape, 1.0, tl.float32), rms + EPS)


@triton.jit
def pixel_norm_backward(grad, x, rms, inverse, sum_grad_x, C: tl.constexpr):
    """Gradient of x in x / (EPS + rms), given that of the quotient and the sum over C of their product."""
    # Where rms is 0, x and with it the sum are too: any divisor makes the second term the 0 it has to be.
    along = sum_grad_x * inverse * inverse / (C * tl.maximum(rms, 1e-30))
    return grad * inverse - x * along


@triton.jit
def random_words(seed_low, seed_high, stream, position, block):
    """Philox4x32-10's four 32-bit words of each counter block. block: a tile; position: an int64."""
    c1 = tl.cast(stream, tl.uint32)
    k0 = tl.cast(seed_low, tl.uint32)
    k1 = tl.cast(seed_high, tl.uint32)
    c2 = (position & 0xFFFFFFFF).to(tl.uint32)
    c3 = ((position >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox_impl(block.to(tl.uint32), c1, c2, c3, k0, k1, n_rounds=10)


@triton.jit
def uniform(word):
    """A number in [0, 1) with 24 bits."""
    return (word >> 8).to(tl.int32).to(tl.float32) * _UNIT_24


@triton.jit
def box_muller(word_0, word_1):
    """Two independent standard normals.

    The angle is reduced to a quadrant while it is an integer of 24 bits, so exactly; sine and cosine on
    [-pi/4, pi/4] are Cephes' polynomials, right to an ulp on every device.
    """
    radius = tl.sqrt_rn(-2 * tl.log(((word_0 >> 8).to(tl.int32) + 1).to(tl.float32) * _UNIT_24))
    turn = (word_1 >> 8).to(tl.int32)
    quadrant = (turn + (1 << 21)) >> 22
    angle = (turn - (quadrant << 22)).to(tl.float32) * _TURN_24
    square = angle * angle
    sine = ((-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1) * square * angle + angle
    cosine = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2
    cosine = cosine * square * square - 0.5 * square + 1
    odd = (quadrant & 1) == 1
    first = tl.where(odd, sine, cosine)
    first = tl.where(((quadrant + 1) & 2) == 2, -first, first)
    second = tl.where(odd, cosine, sine)
    second = tl.where((quadrant & 2) == 2, -second, second)
    return radius * first, radius * second


@triton.jit
def interleave_pixels(v0, v1, v2, v3):
    """Four tiles [..., quads, channels], of pixels 4q, ..., 4q + 3, as one [..., 4 quads, channels]."""
    quads = tl.join(tl.join(v0, v2), tl.join(v1, v3))
    if len(v0.shape) == 2:
        return tl.reshape(tl.permute(quads, (0, 2, 3, 1)), (4 * v0.shape[0], v0.shape[1]))
    else:
        return tl.reshape(tl.permute(quads, (0, 1, 3, 4, 2)), (v0.shape[0], 4 * v0.shape[1], v0.shape[2]))


@triton.jit
def token_place(num_rows, C: tl.constexpr, SPAN: tl.constexpr, CHANNELS: tl.constexpr):
    """Of a program over tokens [B,L,C]: its image, its span of the image's rows, channels [1,CHANNELS]."""
    channel_blocks: tl.constexpr = (C + CHANNELS - 1) // CHANNELS
    spans = tl.cdiv(num_rows, SPAN)
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    part = tl.program_id(0) // channel_blocks
    return (part // spans).to(tl.int64), part % spans, channel


@triton.jit
def _sum_rows_kernel(values, out, num_rows, C: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """out[i, c] = sum over j < num_rows of values[i, j, c], always in the same order."""
    channel_blocks: tl.constexpr = (C + CHANNELS - 1) // CHANNELS
    channel = tl.program_id(0) % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    i = (tl.program_id(0) // channel_blocks).to(tl.int64)
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    for first in range(0, num_rows, ROWS):
        j = first + tl.arange(0, ROWS)[:, None]
        inside = (j < num_rows) & (channel < C)
        total += tl.load(values + (i * num_rows + j) * C + channel, mask=inside, other=0.0)
    tl.store(out + i * C + channel, tl.sum(total, axis=0, keep_dims=True), mask=channel < C)


def sum_rows(values: Tensor) -> Tensor:
    """Sum over dimension 1 of a contiguous float32 [I,J,C] -> [I,C], a view of it where J is 1."""
    num_sums, num_rows, channels = values.shape
    if num_rows == 1:
        return values.squeeze(1)
    out = values.new_empty(num_sums, channels)
    width = min(channel_block(channels), 64)
    rows = min(triton.next_power_of_2(max(num_rows, 1)), 32)
    programs = num_sums * triton.cdiv(channels, width)
    launch(_sum_rows_kernel, programs, values, out, num_rows, C=channels, ROWS=rows, CHANNELS=width)
    return out
