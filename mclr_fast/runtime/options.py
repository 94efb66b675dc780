"""Options of the command line that are out of range, refused in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import RunError


def option_of(name: str) -> str:
    """A field of the configuration as the command line has it: num_negatives -> --num-negatives."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Check:
    """check(holds, where, *names): RunError for a field that does not hold, or one of its values.

    A field that is None was not said, and holds.
    """

    config: Any

    def at_least(self, lowest: int, *names: str) -> None:
        """Each field is a finite number that is not lower."""
        self(lambda value: lowest <= value < math.inf, f"at least {lowest}", *names)

    def at_most(self, highest: int, *names: str) -> None:
        """Each field is a number that is not higher."""
        self(lambda value: value <= highest, f"at most {highest:,}", *names)

    def __call__(self, holds: Callable[[float], bool], where: str, *names: str) -> None:
        """`where` says in words what `holds` asks."""
        for name in names:
            value = getattr(self.config, name)
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            if not all(map(holds, values)):
                raise RunError(f"{option_of(name)} must be {where}, not {value}.")
