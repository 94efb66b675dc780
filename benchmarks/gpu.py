"""Timing on a device: what waits for it, its copy bandwidth, its kernels (on a CPU, for tests, operators)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import NamedTuple

import floor
import torch
from interleave import seconds_a_call
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


class Device:
    """Where a row is measured: "cuda", or "cpu" to see that its parts run."""

    def __init__(self, name: str):
        self.name = name
        self.is_cuda = name == "cuda"

    def finish(self) -> None:
        """Wait for what was launched."""
        if self.is_cuda:
            torch.cuda.synchronize()  # SYNC: the measurement ends here

    def empty(self) -> None:
        """Give back what is held for nobody."""
        if self.is_cuda:
            gc.collect()
            torch.cuda.empty_cache()

    def facts(self) -> dict[str, str]:
        processor = torch.cuda.get_device_name() if self.is_cuda else "cpu"
        return {"processor": processor, "torch": torch.__version__}

    def copy_bandwidth(self) -> float:
        """Bytes read and written a second by a copy of 2 GiB (2 MiB on a CPU), the best of ten."""
        source = torch.empty(1 << (29 if self.is_cuda else 19), device=self.name)
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)

        timed = floor.timed_on_gpu if self.is_cuda else seconds_a_call
        return 2 * source.nbytes / min(timed(copy) for _ in range(10))

    def peak_GiB(self, call: Callable[[], object]) -> float:
        """Most memory that tensors take in a call; 0 on a CPU."""
        if not self.is_cuda:
            call()
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        call()
        self.finish()
        return torch.cuda.max_memory_allocated() / 2**30

    def reserved_GiB(self) -> float:
        """What the allocator holds; 0 on a CPU."""
        return torch.cuda.memory_reserved() / 2**30 if self.is_cuda else 0.0


class Kernel(NamedTuple):
    """A kernel of a profiled call: its name, and each launch's milliseconds."""

    name: str
    milliseconds: list[float]


def profiled(call: Callable[[], object], device: Device, **options) -> profile:
    """The profile of a call and what it launched; `options` are torch.profiler.profile's."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * device.is_cuda
    device.finish()
    with profile(activities=activities, **options) as found:
        call()
        device.finish()
    return found


def kernels(events: Iterable, device: Device) -> list[Kernel]:
    """What computed, of a profile's events: not copies to and from the host, which run beside it, nor marks.

    On a CPU: operators, the time of those that they call taken off.
    """
    by_name: dict[str, list[float]] = {}
    for event in events:
        if device.is_cuda:
            if event.device_type != DeviceType.CUDA or event.is_user_annotation:
                continue
            if event.name.startswith(("Memcpy HtoD", "Memcpy DtoH")):
                continue
            milliseconds = event.device_time_total / 1e3
        else:
            milliseconds = event.self_cpu_time_total / 1e3
        by_name.setdefault(event.name, []).append(milliseconds)
    return sorted(
        (Kernel(name, milliseconds) for name, milliseconds in by_name.items()),
        key=lambda kernel: -sum(kernel.milliseconds),
    )


def busy_seconds(call: Callable[[], object], device: Device, calls: int = 1) -> float:
    """The kernels' time of a call, added up."""

    def several() -> None:
        for _ in range(calls):
            call()

    found = kernels(profiled(several, device).events(), device)
    return sum(sum(kernel.milliseconds) for kernel in found) / calls / 1e3
