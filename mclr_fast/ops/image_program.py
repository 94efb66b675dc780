"""A whole network as one call: its steps on one image after another; on the CPU, no gradient."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import _choice, _native

CONVOLVE, PIXEL_NORM_SILU, MODULATE_SILU, MP_SUM_CLIP, MP_CAT_SILU, DOWNSAMPLE, UPSAMPLE, ATTEND = range(8)
NOTHING, INPUT, OUTPUT = -1, -2, -3  # enum mclr_place
DTYPES = (torch.float32, torch.bfloat16)
ALIGNMENT = 16  # floats, a line of the cache


class _Step(ctypes.Structure):
    """mclr_step of csrc/include/mclr_fast.h."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("kind", "a", "b", "out", "second")]
        + [("weight", ctypes.c_void_p)]
        + [
            (name, ctypes.c_int64)
            for name in ("height", "width", "in_channels", "out_channels", "kernel", "heads")
        ]
        + [(name, ctypes.c_float) for name in ("scale_a", "scale_b", "clip", "unused")]
    )


@dataclass(eq=False)
class Activation:
    """An image's activations between two steps, [height, width, channels]."""

    height: int
    width: int
    channels: int
    place: int = NOTHING
    last_use: int = -1
    shared: bool = False  # made by a step that serves all columns of an image

    @property
    def size(self) -> int:
        """In floats."""
        return self.height * self.width * self.channels


@dataclass
class _Recorded:
    kind: int
    operands: tuple[Activation, ...]
    results: tuple[Activation, ...]
    numbers: dict[str, float | int] = field(default_factory=dict)


class ImageProgram:
    """Records steps, then runs them: `run(input, emb)` after `finish(output)`.

    The steps are those of the ops of the same names, and `convolve` (3x3 with zeros around, or 1x1),
    `downsample`, `upsample`, and `attend`: `qkv_norm` and attention. What comes before the first
    `modulate_silu` runs once an image for all its columns.

    Why       A small network's kernels take less time than the calls that start them, and an image's
              activations fit the cache that a batch's do not.
    Dtypes    of what convolutions multiply, and of the output: float32, or bfloat16. All else is float32: in
              bfloat16 a convolution rounds its input and weight, its sums and what follows are not rounded.
    Numerics  Sums are added up in another order than by other kernels. An image's result does not depend on
              its batch, nor on the number of threads.
    Cost      A convolution takes 2 height width out_channels in_channels kernel^2 FLOPs, and more for zero
              weights where a register holds several pixels; memory is read and written once an image.
    Errors    ValueError for another dtype, and where shapes do not fit.
    """

    def __init__(self, height: int, width: int, channels: int, dtype: torch.dtype = torch.float32):
        if dtype not in DTYPES:
            raise ValueError(f"a program is of float32 or bfloat16, not {dtype}.")
        self.dtype, self._code = dtype, _native.DTYPES.index(dtype)
        self.input = Activation(height, width, channels, INPUT, shared=True)
        self._steps: list[_Recorded] = []
        self._num_shared: int | None = None
        self._weights: list[Tensor] = []
        self.emb_size = 0  # of all channels that are modulated

    @staticmethod
    def available(dtype: torch.dtype) -> bool:
        """Whether a kernel is there and wanted; RuntimeError where it was asked for by name and is not."""
        return dtype in DTYPES and _choice.fused_for("image_program", torch.device("cpu"), dtype)

    def convolve(self, x: Activation, weight: Tensor) -> Activation:
        """weight: [out, in, k, k], k 1 or 3, of any dtype; copied."""
        out_channels, in_channels, kernel, _ = weight.shape
        if in_channels != x.channels or kernel not in (1, 3):
            raise ValueError(f"weight {list(weight.shape)} does not go with {x.channels} channels.")
        sizes = out_channels, in_channels, kernel
        library = _native.cpu()
        size = torch.empty((), dtype=torch.int64)
        library.image_program_packed_size(self._code, size, *sizes, x.width)
        packed = torch.empty(size.item(), dtype=torch.uint8)
        rows = weight.detach().float().permute(0, 2, 3, 1).contiguous()
        library.image_program_pack(self._code, rows, packed, *sizes, x.width)
        self._weights.append(packed)
        (out,) = self._add(
            CONVOLVE,
            (x,),
            [(x.height, x.width, out_channels)],
            weight=packed.data_ptr(),
            out_channels=out_channels,
            kernel=kernel,
        )
        return out

    def pixel_norm_silu(self, x: Activation) -> tuple[Activation, Activation]:
        """As `ops.pixel_norm_silu`."""
        shape = x.height, x.width, x.channels
        normalized, silu = self._add(PIXEL_NORM_SILU, (x,), [shape, shape])
        return normalized, silu

    def modulate_silu(self, x: Activation) -> Activation:
        """As `ops.modulate_silu`, with the next x.channels numbers of `run`'s emb."""
        if self._num_shared is None:
            self._num_shared = len(self._steps)
        (out,) = self._add(MODULATE_SILU, (x,), [(x.height, x.width, x.channels)], b=self.emb_size)
        self.emb_size += x.channels
        return out

    def mp_sum_clip(
        self, a: Activation, b: Activation, t: float, clip: float | None = None, *, silu: bool = False
    ) -> tuple[Activation, Activation | None]:
        """As `ops.mp_sum_clip`, and with `silu` as `ops.mp_sum_clip_silu`."""
        norm = math.hypot(1 - t, t)
        shapes = [(a.height, a.width, a.channels)] * (2 if silu else 1)
        scales = {"scale_a": (1 - t) / norm, "scale_b": t / norm, "clip": math.inf if clip is None else clip}
        results = self._add(MP_SUM_CLIP, (a, b), shapes, **scales)
        return results[0], results[1] if silu else None

    def mp_cat_silu(self, a: Activation, b: Activation, t: float) -> tuple[Activation, Activation]:
        """As `ops.mp_cat_silu`."""
        channels = a.channels + b.channels
        scale = math.sqrt(channels / ((1 - t) ** 2 + t**2))
        cat, silu = self._add(
            MP_CAT_SILU,
            (a, b),
            [(a.height, a.width, channels)] * 2,
            out_channels=b.channels,
            scale_a=scale * (1 - t) / math.sqrt(a.channels),
            scale_b=scale * t / math.sqrt(b.channels),
        )
        return cat, silu

    def downsample(self, x: Activation) -> Activation:
        """The mean of 2x2 pixels."""
        return self._add(DOWNSAMPLE, (x,), [(x.height // 2, x.width // 2, x.channels)])[0]

    def upsample(self, x: Activation) -> Activation:
        """Nearest neighbour, twice as large."""
        return self._add(UPSAMPLE, (x,), [(2 * x.height, 2 * x.width, x.channels)])[0]

    def attend(self, qkv: Activation, num_heads: int) -> Activation:
        """Cosine attention, softmax(q k^T / sqrt(d)) v, with q, k, v as `ops.qkv_norm` makes them."""
        channels = qkv.channels // 3
        shape = qkv.height, qkv.width, channels
        return self._add(ATTEND, (qkv,), [shape], out_channels=channels, heads=num_heads)[0]

    def finish(self, output: Activation) -> ImageProgram:
        """Give every activation its place in memory; itself, ready to run."""
        self._num_shared = self._num_shared or 0  # without a modulation every column runs all of it
        output.place, self._output = OUTPUT, output
        self._memory_size = self._place()
        self._scratch_at = self._memory_size
        self._memory_size += _rounded_up(max(map(_scratch, self._steps)))
        self._table = (_Step * len(self._steps))(*map(_row, self._steps))
        self._memory = torch.empty(0)
        return self

    def run(self, net_input: Tensor, emb: Tensor) -> Tensor:
        """Every image's output under each of its columns.

        Shapes    net_input: [N,C,H,W] of the program's input; emb: [B, all modulated channels], B = N R
                  -> [B,C,H,W] of its output, channels_last.
        Dtypes    net_input: float32 or the program's; emb: float32 -> the program's.
        """
        shape = (self.input.channels, self.input.height, self.input.width)
        if net_input.shape[1:] != shape or emb.ndim != 2 or emb.shape[1] != self.emb_size:
            raise ValueError(
                f"the program takes [N,{','.join(map(str, shape))}] and [B,{self.emb_size}], "
                f"not {list(net_input.shape)} and {list(emb.shape)}."
            )
        images, rows = len(net_input), len(emb)
        if rows % max(images, 1):
            raise ValueError(f"emb has {rows} rows for {images} images: give as many for each.")
        net_input = net_input.float().contiguous(memory_format=torch.channels_last)
        out = torch.empty(rows, self._output.height, self._output.width, self._output.channels)
        threads = torch.get_num_threads()
        if self._memory.numel() < threads * self._memory_size:
            self._memory = torch.empty(threads * self._memory_size)
        if rows:
            _native.cpu().image_program_run(
                self._code,
                self._table,
                len(self._steps),
                self._num_shared,
                net_input,
                out,
                emb.float().contiguous(),
                self._memory,
                images,
                rows // images,
                self.input.size,
                self._output.size,
                self.emb_size,
                self._memory_size,
                self._scratch_at,
                threads,
            )
        return out.to(self.dtype).permute(0, 3, 1, 2)

    def _add(
        self, kind: int, operands: tuple[Activation, ...], shapes: list[tuple[int, int, int]], **numbers
    ) -> list[Activation]:
        results = [Activation(*shape, shared=self._num_shared is None) for shape in shapes]
        for operand in operands:
            operand.last_use = len(self._steps)
        self._steps.append(_Recorded(kind, operands, tuple(results), numbers))
        return results

    def _place(self) -> int:
        """Give activations their places; the memory that they take.

        A place is used again by the next of its size, but for what the columns of an image share.
        """
        free: dict[int, list[int]] = {}
        end = 0
        for number, step in enumerate(self._steps):
            for result in step.results:
                if result.place == OUTPUT:
                    continue
                size = _rounded_up(result.size)
                if free.get(size):
                    result.place = free[size].pop()
                else:
                    result.place, end = end, end + size
            for done in {*step.operands, *step.results}:
                if done.last_use <= number and done.place >= 0 and not done.shared:
                    free.setdefault(_rounded_up(done.size), []).append(done.place)
        return end


def _rounded_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _row(step: _Recorded) -> _Step:
    x, out = step.operands[0], step.results[0]
    row = _Step(
        kind=step.kind,
        a=x.place,
        b=step.operands[1].place if len(step.operands) > 1 else NOTHING,
        out=out.place,
        second=step.results[1].place if len(step.results) > 1 else NOTHING,
        height=out.height,
        width=out.width,
        in_channels=x.channels,
    )
    for name, value in step.numbers.items():
        setattr(row, name, value)
    return row


def _scratch(step: _Recorded) -> int:
    """Floats that a step takes besides its operands and results."""
    x, pixels = step.operands[0], step.results[0].height * step.results[0].width
    if step.kind == CONVOLVE:
        return (x.height + 2) * (x.width + 2) * x.channels + ALIGNMENT  # a group of taps may end past it
    if step.kind == MODULATE_SILU:
        return ALIGNMENT * x.channels
    if step.kind == ATTEND:
        return pixels * (x.channels + 1)
    return 0
