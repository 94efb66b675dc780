"""The floor of a training step: its convolutions, matrix products and attention calls, and nothing else.

`record` notes every such call of one step, forward and backward, as the step makes it. `Floor` replays them
with random operands of the same shapes and dtypes, each in the better of the two memory formats, and adds up
the calls' times. Nothing beats that without a better convolution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
FORWARD_CONVOLUTION = {aten.convolution.default}
BACKWARD_CONVOLUTION = {aten.convolution_backward.default}
MATRIX_PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.linear.default,
}
ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}
ATTENTION_BACKWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    aten._scaled_dot_product_flash_attention_backward.default,
    aten._scaled_dot_product_efficient_attention_backward.default,
    aten._scaled_dot_product_cudnn_attention_backward.default,
}
RECORDED = FORWARD_CONVOLUTION | BACKWARD_CONVOLUTION | MATRIX_PRODUCTS | ATTENTION | ATTENTION_BACKWARD
FORMATS = (torch.contiguous_format, torch.channels_last)
INTERVALS = 3  # tries of each format when choosing


@dataclass(frozen=True)
class Operand:
    """A tensor's description: enough to make another like it."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str


@dataclass(frozen=True)
class Call:
    """One recorded call: the op, its arguments with tensors as `Operand`s, and its FLOPs."""

    op: Any
    args: tuple
    kwargs: tuple
    flops: int

    @property
    def is_convolution(self) -> bool:
        return self.op in FORWARD_CONVOLUTION | BACKWARD_CONVOLUTION


class Noting(TorchDispatchMode):
    """A mode that notes calls of everything run inside, the backward pass included; `as` gives the list.

    Autograd runs the CPU's backward pass on the thread that called it, where this mode is active; a GPU's
    it runs there too while its threads are switched off.
    """

    def __init__(self):
        super().__init__()
        self.calls: list[Any] = []

    def __enter__(self) -> list[Any]:
        self._one_thread = torch.autograd.set_multithreading_enabled(False)
        self._one_thread.__enter__()
        super().__enter__()
        return self.calls

    def __exit__(self, *error):
        super().__exit__(*error)
        self._one_thread.__exit__(*error)


class record(Noting):
    """`with record() as calls:` notes the calls that the floor is made of, each a `Call`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in RECORDED:
            flops = count_flops(func, args, kwargs, result)
            kept = tuple((name, _describe(value)) for name, value in sorted(kwargs.items()))
            self.calls.append(Call(func, tuple(map(_describe, args)), kept, int(flops)))
        return result


class BytesMoved(TorchDispatchMode):
    """Adds up in `total` the bytes of the package's own ops: every tensor argument and result once.

    The ops read and write no less, and at best at the machine's copy bandwidth.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.namespace == "mclr_fast":
            leaves = tree_leaves((args, kwargs, result))
            self.total += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        return result


def count_flops(func, args, kwargs, result) -> int:
    """FLOPs of a call: torch's own count, and two that torch has none for on the CPU."""
    if func is aten.linear.default:
        return 2 * args[0].numel() * args[1].shape[0]
    if func in ATTENTION | ATTENTION_BACKWARD:
        backward = func in ATTENTION_BACKWARD
        query, key = args[backward : backward + 2]
        # Two products forward; backward four, and the scores once more.
        return (5 if backward else 2) * 2 * query.numel() * key.shape[-2]
    return flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Operand(tuple(value.shape), tuple(value.stride()), value.dtype, value.device.type)
    return tuple(value) if isinstance(value, list) else value


def convolution_flops(call: Call) -> int:
    """2 B Co Ho Wo Ci kh kw, once for each of: the output, the input's and the weight's gradient."""
    if call.op in FORWARD_CONVOLUTION:
        x, weight, _bias, stride, padding, dilation, transposed, _output_padding, groups = call.args
        times = 1
    else:
        _grad, x, weight, _sizes, stride, padding, dilation, transposed, _output_padding, groups, mask = (
            call.args
        )
        times = mask[0] + mask[1]
    assert not transposed and set(dilation) == {1}, "the formula is for plain convolutions"
    num_out, per_group, *kernel = weight.shape
    size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], padding, kernel, stride, strict=True)]
    assert per_group * groups == x.shape[1]
    return times * 2 * x.shape[0] * num_out * size[0] * size[1] * per_group * kernel[0] * kernel[1]


def network_flops(
    num_evaluations: int,
    num_images: int,
    *,
    img_resolution: int,
    img_channels: int,
    model_channels: int,
    channel_mult: Sequence[int],
    num_blocks: int,
    attn_resolutions: Sequence[int],
    channels_per_head: int = 64,
    **_other,
) -> tuple[int, int]:
    """Convolution FLOPs of an EDM2 training step: (least; all, each image, label and pixel for itself).

    From the architecture alone. A step is forward, gradient of the input and gradient of the weight; the
    first convolution's input needs none. What the R labels of an image may share: the input convolution, the
    first block's conv_res0 (and conv_skip), and of the last decoder block the half that reads the first skip.
    What equal pixels share: a convolution of a doubled image has 16 products for four of its pixels, not 36,
    on windows that are one more than the small image's sides.
    """
    widths = [model_channels * mult for mult in channel_mult]
    shared, rest, saved = [], [], []  # FLOPs of an evaluation's three products; of the first, two are made

    def conv(taps, width_in, width_out, res, *, times=3, share=False):
        (shared if share else rest).append(times * 2 * width_in * width_out * taps * res * res)

    def tail(width, res, attention):
        conv(9, width, width, res)
        if attention and width // channels_per_head > 0:
            conv(1, width, 3 * width, res)
            conv(1, width, width, res)

    skips = []
    width, first = widths[0], True
    conv(9, img_channels + 1, width, img_resolution, times=2, share=True)
    for level, width_out in enumerate(widths):
        res = img_resolution >> level
        if level > 0:
            conv(9, width, width, res)
            tail(width, res, False)
        skips.append(width)
        for _ in range(num_blocks):
            if width != width_out:
                conv(1, width, width_out, res, share=first)
            conv(9, width_out, width_out, res, share=first)
            tail(width_out, res, res in attn_resolutions)
            width, first = width_out, False
            skips.append(width)
    for level, width_out in reversed(list(enumerate(widths))):
        res = img_resolution >> level
        if level == len(widths) - 1:
            for attention in (True, False):
                conv(9, width, width, res)
                tail(width, res, attention)
        else:
            conv(16, width, width, res // 2 + 1)
            saved.append(3 * 2 * width * width * 9 * res * res - rest[-1])
            tail(width, res, False)
        for _ in range(num_blocks + 1):
            skip = skips.pop()
            for taps in (9, 1):
                conv(taps, width, width_out, res)
                conv(taps, skip, width_out, res, share=not skips)
            width = width_out
            tail(width, res, res in attn_resolutions)
    conv(9, width, img_channels, img_resolution)
    least = num_evaluations * sum(rest) + num_images * sum(shared)
    return least, num_evaluations * (sum(rest) + sum(shared) + sum(saved))


class Floor:
    """Replays recorded calls; calling it gives their total time in seconds.

    Operands are made once, each call having its own, as in the step; the one that the step would just have
    written (a forward call's input, a backward call's gradient) is rewritten, untimed, before each call, so
    that it lies in the cache as it would there. On a GPU equal calls share their operands, which are larger
    than its cache, and all calls are timed together, so that no launch is waited for.
    """

    def __init__(self, calls: Sequence[Call]):
        assert calls, "nothing was recorded"
        for call in calls:
            if call.is_convolution:
                assert call.flops == convolution_flops(call), call
        self.flops = sum(call.flops for call in calls)
        self.convolution_flops = sum(call.flops for call in calls if call.is_convolution)
        self.channels_last = 0
        chosen: dict[Call, torch.memory_format] = {}
        shared: dict[Call, tuple[Callable[[], object], Tensor]] = {}
        self.replays: list[tuple[Callable[[], object], Tensor]] = []
        for call in calls:
            if call not in chosen:
                chosen[call] = self._choose(call)
            self.channels_last += call.is_convolution and chosen[call] is torch.channels_last
            replay = shared[call] if call in shared else _prepare(call, chosen[call])
            self.replays.append(replay)
            if replay[1].is_cuda:
                shared[call] = replay

    @staticmethod
    def _choose(call: Call) -> torch.memory_format:
        if not call.is_convolution:
            return torch.contiguous_format  # strides are kept as recorded: there is nothing to choose
        replays = {memory_format: _prepare(call, memory_format) for memory_format in FORMATS}
        seconds: dict[torch.memory_format, list[float]] = {memory_format: [] for memory_format in FORMATS}
        for _ in range(1 + INTERVALS):
            for memory_format, replay in replays.items():
                seconds[memory_format].append(_timed(*replay))
        return min(FORMATS, key=lambda memory_format: min(seconds[memory_format][1:]))

    def __call__(self) -> float:
        if self.replays[0][1].is_cuda:
            return timed_on_gpu(*(function for function, _ in self.replays))
        return sum(_timed(*replay) for replay in self.replays)


def timed_on_gpu(*functions: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for function in functions:
        function()
    end.record()
    end.synchronize()  # SYNC: the measurement ends here
    return start.elapsed_time(end) / 1e3


def _timed(function: Callable[[], object], fresh: Tensor) -> float:
    if fresh.is_cuda:
        return timed_on_gpu(function)
    fresh.mul_(1)
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _prepare(call: Call, memory_format: torch.memory_format) -> tuple[Callable[[], object], Tensor]:
    """The call with operands of its own, and the operand that the step would just have written."""

    def make(value):
        if not isinstance(value, Operand):
            return list(value) if isinstance(value, tuple) else value
        if call.is_convolution and len(value.shape) == 4:
            tensor = torch.empty(
                value.shape, dtype=value.dtype, device=value.device, memory_format=memory_format
            )
        elif 0 in value.stride or not value.dtype.is_floating_point:  # broadcast, or a random state
            tensor = torch.zeros(value.shape, dtype=value.dtype, device=value.device)
        else:
            tensor = torch.empty_strided(value.shape, value.stride, dtype=value.dtype, device=value.device)
        return tensor.normal_() if value.dtype.is_floating_point else tensor

    args = [make(value) for value in call.args]
    kwargs = {name: make(value) for name, value in call.kwargs}
    if call.op is aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
        # Output and log-sum-exp must belong to q, k and v, or exponentials overflow into slow numbers.
        args[4], args[5] = aten._scaled_dot_product_flash_attention_for_cpu(*args[1:4])
    return (lambda: call.op(*args, **kwargs)), next(value for value in args if isinstance(value, Tensor))
