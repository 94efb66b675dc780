"""What sampling needs of a model: a start a seed, and what becomes of it under a label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from torch import Tensor

from mclr_fast.runtime.device.graphs import Graphs
from mclr_fast.runtime.logs import say


class Sampler(Protocol):
    """A network made ready to sample with one set of options. A family makes it (`models/family.py`).

    Attributes: nfe, network calls a sample; guidance, its strength, and unguided, which is none.
    """

    nfe: int
    guidance: float
    unguided: float

    def held(self) -> AbstractContextManager[None]:
        """Inside, what does not change between calls (effective weights) is made once."""
        ...

    def start(self, seeds: Sequence[int]) -> Tensor:
        """What a batch begins from, [b, ...] on the device: a random stream a seed, alike on every device."""
        ...

    def __call__(self, start: Tensor, labels: Tensor) -> Tensor:
        """start, and labels int64 [b] on the device -> x [b, ...], in the model's own range."""
        ...


@dataclass(frozen=True)
class CapturedSampler(ABC):
    """What samplers share whose whole call is one CUDA graph a batch shape, inside `held` on a GPU.

    A subclass has `hold`, a context in which what does not change between calls is made once, and stays where
    it is.
    """

    _graphs: list[Graphs] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    @abstractmethod
    def captures(self) -> bool:
        """Whether calls are to be captured."""

    @abstractmethod
    def _sample(self, start: Tensor, labels: Tensor) -> Tensor:
        """The whole call; as `runtime.device.graphs.Graphs` wants its functions."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """As `Sampler.held`; the graphs read what is held."""
        with self.hold():
            if not self.captures:
                yield
                return
            self._graphs.append(Graphs(self._sample, say=partial(say, True)))
            try:
                yield
            finally:
                self._graphs.pop()

    def __call__(self, start: Tensor, labels: Tensor) -> Tensor:
        """As `Sampler.__call__`."""
        sample = self._graphs[-1] if self._graphs else self._sample
        return sample(start, labels)
