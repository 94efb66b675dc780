"""Every operation of a step: its kernels' time, the bytes it moves, and the least it could move.

Bytes: each tensor that a call reads or writes, once, as it is stored (a broadcast one as it lies there). The
least: of what is neither a convolution nor a product only what comes from one or goes to one, was there
before the step or is left after it; all else could stay in one kernel's registers, or be computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import floor
import torch
from gpu import Device, Kernel, kernels, profiled
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import record_function
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
ONLY_WRITE = ("copy_", "zero_", "fill_", "normal_", "uniform_", "_foreach_copy_", "_foreach_zero_")
MARK = "call "


def stored_bytes(tensor: Tensor) -> int:
    """Of memory that a tensor lies in; broadcast dimensions take none."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1
    for size, stride in sizes:
        count *= size if stride or not size else 1
    return count * tensor.element_size()


@dataclass
class Value:
    """What some memory holds between two writes: the call that wrote it (None: before), and its readers."""

    writer: Call | None
    readers: list[Call] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """One call of an operation. mark: its number in a profile; kept: what it writes to was there before."""

    name: str
    is_product: bool
    mark: int = -1
    flops: int = 0
    reads: list[tuple[Value, int]] = field(default_factory=list)
    writes: list[tuple[Value, int]] = field(default_factory=list)
    kept: bool = False
    kernels: list[tuple[str, float]] = field(default_factory=list)  # name, milliseconds

    @property
    def bytes(self) -> int:
        return sum(count for _, count in (*self.reads, *self.writes))

    @property
    def least_bytes(self) -> int:
        if self.is_product:
            return self.bytes
        needed = [count for value, count in self.reads if value.writer is None or value.writer.is_product]
        for value, count in self.writes:
            if self.kept or not value.readers or any(reader.is_product for reader in value.readers):
                needed.append(count)
        return sum(needed)


class Calls(floor.Noting):
    """`with Calls() as calls:` notes every call inside that touches memory, and marks it in a profile."""

    def __init__(self):
        super().__init__()
        self._values: dict[int, Value] = {}  # by memory
        self._marks = 0
        self._made: set[int] = set()  # memory that was not there before

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._marks += 1
        with record_function(f"{MARK}{self._marks}"):
            result = function(*args, **kwargs)
        given = _tensors((args, kwargs))
        memory = {_memory(tensor) for tensor in given}
        fresh = [tensor for tensor in _tensors(result) if _memory(tensor) not in memory]
        changed = _written(function, args, kwargs)
        name = function._schema.name.partition("::")[2]
        self._made |= {_memory(tensor) for tensor in fresh}
        if name.startswith(("empty", "new_empty")) or not (fresh or changed):
            return result  # views, and memory that nobody has written to
        kept = any(_memory(tensor) not in self._made for tensor in changed)
        call = Call(
            str(function).removesuffix(".default"), function in floor.RECORDED, self._marks, kept=kept
        )
        if call.is_product:
            call.flops = int(floor.count_flops(function, args, kwargs, result))
        self.calls.append(call)
        only_written = {id(tensor) for tensor in changed} if name in ONLY_WRITE or "out" in kwargs else set()
        for tensor in given:
            if id(tensor) not in only_written and tensor.numel():
                self._read(call, tensor)
        for tensor in (*fresh, *changed):
            value = self._values[_memory(tensor)] = Value(call)
            call.writes.append((value, stored_bytes(tensor)))
        return result

    def _read(self, call: Call, tensor: Tensor) -> None:
        value = self._values.setdefault(_memory(tensor), Value(None))
        value.readers.append(call)
        call.reads.append((value, stored_bytes(tensor)))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(values: Any) -> list[Tensor]:
    """Each once."""
    return list({id(v): v for v in tree_leaves(values) if isinstance(v, Tensor)}.values())


def _written(function, args: tuple, kwargs: dict) -> list[Tensor]:
    """The arguments that a call writes to."""
    found = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(args[place] if place < len(args) else kwargs.get(argument.name))
    return found


def _linked(event) -> Iterator[tuple[str, float]]:
    """The kernels that an event of the host and those inside it launched, with milliseconds."""
    for kernel in event.kernels:
        if not kernel.name.startswith(("Memcpy HtoD", "Memcpy DtoH")):
            yield kernel.name, kernel.duration / 1e3
    for child in event.cpu_children:
        yield from _linked(child)


def take(step: Callable[[], object], device: Device) -> tuple[list[Call], list[tuple[str, float]]]:
    """The calls of one step with their kernels, and the kernels that belong to none. On a CPU: one a call."""
    mode = Calls()

    def marked() -> None:
        with mode:
            step()

    events = profiled(marked, device).events()
    assign(mode.calls, events, device)
    return mode.calls, _others(mode.calls, kernels(events, device)) if device.is_cuda else []


def assign(calls: list[Call], events: Iterable, device: Device) -> None:
    """Give each call the kernels that a profile's events say it launched."""
    by_mark = {f"{MARK}{call.mark}": call for call in calls}
    for event in events:
        if event.device_type == DeviceType.CPU and event.name in by_mark:
            call = by_mark[event.name]
            alone = [(call.name, event.cpu_time_total / 1e3)]
            call.kernels = list(_linked(event)) if device.is_cuda else alone


def _others(calls: list[Call], found: list[Kernel]) -> list[tuple[str, float]]:
    """The kernels that no call launched."""
    left = {name: sorted(milliseconds) for name, milliseconds in found}
    for name, milliseconds in (kernel for call in calls for kernel in call.kernels):
        if times := left.get(name):
            times.remove(min(times, key=lambda time: abs(time - milliseconds)))
    return [(name, time) for name, times in left.items() for time in times]


def table(
    calls: list[Call],
    others: list[tuple[str, float]],
    bandwidth: float,
    other_bytes: Mapping[str, int] | None = None,
) -> list[dict]:
    """A row an operation, the longest first, and a row a kernel that belongs to none.

    bandwidth: a copy's, in bytes a second; other_bytes: what kernels whose names have this part move.
    """
    groups: dict[str, list[Call]] = {}
    for call in calls:
        groups.setdefault(call.name, []).append(call)
    rows = [_row(name, group, bandwidth) for name, group in groups.items()]
    for name in {name for name, _ in others}:
        times = [time for other, time in others if other == name]
        known = sum(count for part, count in (other_bytes or {}).items() if part in name)
        alone = Call(name, is_product=False, kernels=[(name, time) for time in times], kept=True)
        alone.writes = [(Value(None), known)]
        rows.append(_row(name, [alone], bandwidth) | {"calls": len(times)})
    return sorted(rows, key=lambda row: -row["milliseconds"])


def _row(name: str, calls: list[Call], bandwidth: float) -> dict:
    launched: dict[str, list[float]] = {}
    for kernel, milliseconds in (kernel for call in calls for kernel in call.kernels):
        entry = launched.setdefault(kernel, [0, 0.0])
        entry[0] += 1
        entry[1] += milliseconds
    milliseconds = sum(entry[1] for entry in launched.values())
    moved, flops = sum(call.bytes for call in calls), sum(call.flops for call in calls)
    row = {"name": name, "calls": len(calls), "milliseconds": milliseconds, "GB": moved / 1e9}
    row |= {"least_GB": sum(call.least_bytes for call in calls) / 1e9, "is_product": calls[0].is_product}
    if milliseconds:
        row["share_of_copy"] = moved / milliseconds * 1e3 / bandwidth
        row["TFLOPs"] = flops / milliseconds / 1e9
    row["kernels"] = sorted(([k, *entry] for k, entry in launched.items()), key=lambda entry: -entry[2])
    return row


def text(rows: list[dict], bandwidth: float) -> str:
    """The rows as lines, each operation's kernels below it, and what they come to."""
    lines = [f"{'ms':>9} {'calls':>6} {'GB':>8} {'least GB':>8} {'of copy':>8} {'TFLOP/s':>8}  operation"]
    for row in rows:
        share = f"{row['share_of_copy']:.0%}" if row["GB"] and "share_of_copy" in row else ""
        rate = f"{row['TFLOPs']:.0f}" if row.get("TFLOPs") else ""
        sizes = f"{row['milliseconds']:9.3f} {row['calls']:6d} {row['GB']:8.3f} {row['least_GB']:8.3f}"
        lines.append(f"{sizes} {share:>8} {rate:>8}  {row['name'][:100]}")
        lines += [f"{ms:20.3f} {count:5d}      {kernel[:100]}" for kernel, count, ms in row["kernels"]]
    for words, wanted in (("convolutions and products", True), ("all else", False)):
        group = [row for row in rows if row["is_product"] == wanted]
        ms, moved, least = (sum(row[key] for row in group) for key in ("milliseconds", "GB", "least_GB"))
        lines.append(
            f"{words}: {ms:.2f} ms; {moved:.2f} GB, at copy speed {moved / bandwidth * 1e12:.2f} ms; "
            f"least {least:.2f} GB, {least / bandwidth * 1e12:.2f} ms"
        )
    return "\n".join(lines)
