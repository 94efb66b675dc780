"""The seam: what training, sampling and evaluation need of a kind of model, and the families by name.

No other room knows a family's formulas: how inputs are noised, what a network is called with, how its weights
are kept. A new family is one class with these methods and one `register`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from mclr_fast.config import SamplerConfig
from mclr_fast.sampling import Sampler


@dataclass(frozen=True)
class Facts:
    """What may be known of a network without building it.

    Attributes:
        shape: of one sample as the network takes it, (C, H, W) or (L,).
        num_classes: the labels are 0 to num_classes - 1; label -1 is none.
    """

    shape: tuple[int, ...]
    num_classes: int


class Family(Protocol):
    """A kind of model; stateless, one instance. `arguments` are a config.json's "net"."""

    def build(self, arguments: dict[str, Any], *, dtype: torch.dtype, dropout: float = 0.0) -> nn.Module:
        """A network on the current default device."""
        ...

    def facts(self, arguments: dict[str, Any]) -> Facts:
        """What may be known of it without building it."""
        ...

    def sampler(
        self,
        net: nn.Module,
        options: SamplerConfig,
        *,
        guidance: float = 1.0,
        guide: nn.Module | None = None,
    ) -> Sampler:
        """The network made ready to sample; guide None: it guides itself, without a label."""
        ...


_makers: dict[str, Callable[[], Family]] = {}
_families: dict[str, Family] = {}


def register(name: str, make: Callable[[], Family]) -> None:
    """Let config.json's "family" name this one; `make` is called at the first use."""
    _makers[name] = make
    _families.pop(name, None)


def families() -> list[str]:
    """The names that are known."""
    return sorted(_makers)


def get_family(name: str | None) -> Family:
    """The family of that name. ValueError for an unknown one."""
    if name not in _makers:
        raise ValueError(f"model family {name!r} is unknown; known: {', '.join(families())}.")
    if name not in _families:
        _families[name] = _makers[name]()
    return _families[name]
