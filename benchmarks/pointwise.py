"""How one op is timed: past the cache against copy bandwidth, inside it against plain torch.

A file benchmarks/ops/bench_<op>.py describes its op as an `Op` and hands it to `past_cache` and `network`.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import machine
import pytest
import torch
from interleave import interleave, record_times
from torch import Tensor

from mclr_fast import ops

ROUNDS = 9
# The reference rounds after every operation, and sums gradients in its own dtype.
ROUNDINGS = {torch.float32: 200, torch.bfloat16: 16}
ROUND_SECONDS = 0.02  # calls of a small op that make a round
CACHED_ELEMENTS = (40_000, 150_000)  # of one image's arguments; the difference in time is arithmetic
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@dataclass(frozen=True)
class Op:
    """One op.

    Args:
        make: (count, shape, dtype) -> the reference's arguments, `count` images of `shape` (or sets of
            weights); tensors that take a gradient require it.
        past: the shape that is repeated past the cache; shapes: by name, those inside it, count first.
        backward_reads: (arguments, results) -> what backward must read beside the gradients.
        no_gradient: the op has none; philox: it draws random numbers, so arithmetic bounds it.
        cached: two shapes that one core's cache holds, to time the arithmetic, where `past` is no image's.
        adapt: gives the public op the reference's signature, where they differ.
        module: the reference's, where it is not named after the op.
    """

    name: str
    make: Callable[[int, Sequence[int], torch.dtype], tuple]
    past: Sequence[int]
    shapes: dict[str, Sequence[int]]
    backward_reads: Callable[[tuple, tuple], Sequence[Tensor]] = field(default=lambda args, outs: ())
    no_gradient: bool = False
    philox: bool = False
    cached: Sequence[Sequence[int]] = ()
    adapt: Callable[[Callable], Callable] = lambda function: function
    module: str = ""

    @cached_property
    def public(self) -> Callable[..., Any]:
        return self.adapt(getattr(ops, self.name))

    @cached_property
    def reference(self) -> Callable[..., Any]:
        module = importlib.import_module(f"mclr_fast.ops.reference.{self.module or self.name}")
        return getattr(module, self.name)

    @property
    def directions(self) -> Sequence[str]:
        return ("forward",) if self.no_gradient else ("forward", "backward")


def tensors(values) -> list[Tensor]:
    """All tensors of nested arguments or results."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in tensors(value)]
    return []


def num_elements(values) -> int:
    return sum(tensor.numel() for tensor in tensors(values))


def num_bytes(values) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(values))


class Run:
    """An op with its arguments: forward, backward, or both, each a call without arguments."""

    def __init__(self, function: Callable[..., Any], args: tuple):
        self.function, self.args = function, args
        self.inputs = [tensor for tensor in tensors(args) if tensor.requires_grad]
        self.outs = tensors(function(*args))
        torch.manual_seed(1)
        self.differentiable = [out for out in self.outs if out.requires_grad]
        # Equal values for every function, whatever memory format its results have.
        self.cotangents = [torch.empty_like(y).copy_(torch.randn(y.shape)) for y in self.differentiable]

    def forward(self) -> None:
        self.function(*self.args)

    def backward(self) -> list[Tensor]:
        return torch.autograd.grad(self.differentiable, self.inputs, self.cotangents, retain_graph=True)

    def both(self) -> list[Tensor]:
        outs = [out for out in tensors(self.function(*self.args)) if out.requires_grad]
        return torch.autograd.grad(outs, self.inputs, self.cotangents) if outs else []

    def least_bytes(self, op: Op, direction: str) -> int:
        """What must be read and written, each once."""
        if direction == "forward":
            return num_bytes(self.args) + num_bytes(self.outs)
        reads = op.backward_reads(self.args, tuple(self.outs))
        return num_bytes(self.cotangents) + num_bytes(list(reads)) + num_bytes(self.inputs)


def check(op: Op, args: tuple, dtype: torch.dtype) -> None:
    """The op's results and gradients are the reference's, to a few roundings of the largest value."""
    found, expected = (Run(function, args) for function in (op.public, op.reference))
    pairs = [(found.outs, expected.outs)]
    if expected.inputs:
        pairs.append((found.backward(), expected.backward()))
    for values, truths in pairs:
        for value, truth in zip(values, truths, strict=True):
            assert value.dtype == truth.dtype
            rounding = torch.finfo(dtype).eps * max(truth.abs().max().item(), 1e-6)
            rounding *= 100 if truth.numel() == 1 else 1  # a gain's gradient is one sum, which cancels
            assert (value.float() - truth.float()).abs().max().item() <= ROUNDINGS[dtype] * rounding, op.name


def past_cache(benchmark, suite, op: Op, dtype: torch.dtype, direction: str) -> None:
    """Share of copy bandwidth, and of the lower of it and the op's own arithmetic measured in the cache."""
    check(op, op.make(8, op.past, dtype), dtype)
    target = machine.past_cache_bytes(suite.quick)
    one = Run(op.public, op.make(4, op.past, dtype)).least_bytes(op, direction) / 4
    count = 4 * math.ceil(target / one / 4)
    run = Run(op.public, op.make(count, op.past, dtype))
    least = run.least_bytes(op, direction)
    copy = machine.Copy(target)
    others = {"copy": copy, "arithmetic": Arithmetic(op, dtype, direction, num_elements(run.args))}

    bound_by_arithmetic = op.philox or dtype == torch.bfloat16
    info = benchmark.extra_info
    info.update(row=f"pointwise-{op.name}", size="past cache", dtype=str(dtype), direction=direction)
    info.update(least_MB=least / 1e6, bound_by_arithmetic=bound_by_arithmetic, machine=suite.machine)
    times = interleave(benchmark, getattr(run, direction), others, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    ratios = {"share_of_copy": [], "share_of_bound": []}
    rounds = zip(*(times[name].seconds for name in ("ours", "copy", "arithmetic")), strict=True)
    for own, copied, arithmetic in rounds:
        moving = copied * least / copy.num_bytes
        ratios["share_of_copy"].append(moving / own)
        ratios["share_of_bound"].append(max(moving, arithmetic) / own)
    suite.record(benchmark, ratios)


class Arithmetic:
    """Seconds that the op's arithmetic alone would take on arguments of `total` elements, all cores working.

    Two sizes are timed, each with as many images as there are threads and one image's worth in a core's own
    cache; the difference is free of what a call costs. All cores work because they may share what computes:
    two that are one core's hardware threads do not give twice the rate of one. Calling it measures anew.
    """

    def __init__(self, op: Op, dtype: torch.dtype, direction: str, total: int):
        self.direction, self.total = direction, total
        shapes = op.cached or [_image_of(op, dtype, elements) for elements in CACHED_ELEMENTS]
        self.runs = [Run(op.public, op.make(torch.get_num_threads(), shape, dtype)) for shape in shapes]

    def __call__(self) -> float:
        small, large = (least_seconds(getattr(run, self.direction)) for run in self.runs)
        elements = [num_elements(run.args) for run in self.runs]
        return max(large - small, 0.0) / (elements[1] - elements[0]) * self.total


def _image_of(op: Op, dtype: torch.dtype, elements: int) -> tuple[int, int, int]:
    """The smallest image whose arguments have at least so many elements."""
    sizes = ((op.past[0], size, size) for size in range(8, 1024, 8))
    return next(shape for shape in sizes if num_elements(op.make(1, shape, dtype)) >= elements)


def least_seconds(function: Callable[[], object], calls: int = 40) -> float:
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def network(benchmark, suite, op: Op, shape: str, dtype: torch.dtype) -> None:
    """Forward and backward at a shape that the caches hold, against the reference, eager and compiled."""
    count, *rest = op.shapes[shape]
    args = op.make(count, rest, dtype)
    check(op, args, dtype)
    torch._dynamo.reset()
    compiled = torch.compile(op.reference, dynamic=False, backend=suite.backend)
    runs = {"ours": op.public, "torch": op.reference, "compiled": compiled}
    calls = {name: Run(function, args).both for name, function in runs.items()}
    info = benchmark.extra_info
    info.update(row=f"pointwise-{op.name}", size="network", case=shape, dtype=str(dtype))
    info["machine"] = suite.machine
    compare(benchmark, suite, calls)


def compare(benchmark, suite, calls: dict[str, Callable[[], object]], rounds: int = 11) -> None:
    """Time "ours" against the others, `over_torch` and `over_compile` into extra_info."""
    seconds = machine.best_seconds(calls["ours"])
    for call in calls.values():
        call()
    repeat = 1 if suite.quick else min(max(int(ROUND_SECONDS / seconds), 1), 200)
    others = {name: call for name, call in calls.items() if name != "ours"}
    times = interleave(benchmark, calls["ours"], others, rounds=suite.rounds(rounds), calls=repeat)
    if times is None:
        return
    record_times(benchmark, times)
    keys = {"over_torch": "torch", "over_compile": "compiled"}
    suite.record(
        benchmark, {key: times[name].ratios(times["ours"]) for key, name in keys.items() if name in times}
    )
