"""What the next steps need, brought to the device beside what that computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Staged(Generic[T]):
    """A value whose tensors are on their way, and what says that they are there."""

    value: T
    arrived: Any


class Staging(Protocol):
    """Between a thread that brings tensors to a device and one that computes with them."""

    def bring(self, make: Callable[[], T]) -> Staged[T]:
        """make(), whose copies and kernels wait for nothing that others compute; from any thread."""
        ...

    def take(self, staged: Staged[T], tensors: Iterable[Tensor]) -> T:
        """The value, to compute with from here on; `tensors`: all of it that is on the device."""
        ...

    def follow(self) -> None:
        """Bring what is brought from here on after all that the caller has begun to compute."""
        ...


class HostStaging:
    """On a CPU: values are there as soon as they are made."""

    def bring(self, make: Callable[[], T]) -> Staged[T]:
        """As `Staging.bring`."""
        return Staged(make(), None)

    def take(self, staged: Staged[T], tensors: Iterable[Tensor]) -> T:
        """As `Staging.take`."""
        return staged.value

    def follow(self) -> None:
        """As `Staging.follow`."""


class CudaStaging:
    """On a GPU: a stream of its own, on which copies from pinned memory pass by the training's kernels.

    The computing stream waits there for the value's arrival, long past by then; the host waits for neither.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self.follow()

    def bring(self, make: Callable[[], T]) -> Staged[T]:
        """As `Staging.bring`."""
        with torch.cuda.stream(self._stream):
            value = make()
            return Staged(value, self._stream.record_event())

    def take(self, staged: Staged[T], tensors: Iterable[Tensor]) -> T:
        """As `Staging.take`. What is freed later is used again only when this stream is done with it."""
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(staged.arrived)
        for tensor in tensors:
            tensor.record_stream(computing)
        return staged.value

    def follow(self) -> None:
        """As `Staging.follow`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))


def staging(device: torch.device) -> Staging:
    """What brings tensors to a device."""
    return CudaStaging(device) if device.type == "cuda" else HostStaging()
