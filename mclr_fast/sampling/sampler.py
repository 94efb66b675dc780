"""What sampling needs of a model: a start a seed, and what becomes of it under a label."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


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
