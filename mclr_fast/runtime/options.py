"""Options of the command line that are out of range, refused in one line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import RunError

RENAMED = {"recipe_file": "--recipe", "net_options": "--net"}  # fields whose option has another name


def option_of(name: str) -> str:
    """A field of the configuration as the command line has it: num_negatives -> --num-negatives."""
    return RENAMED.get(name) or "--" + name.replace("_", "-")


def given(arguments: Sequence[str] | None) -> list[str]:
    """A door's arguments, or else the command line's, with ~ for one's home wherever a shell would have it.

    Shells leave it alone after an equals sign (--outdir=~/x) and in quotes, and launchers have none; a folder
    whose name is ~ is nobody's wish.
    """
    return [_at_home(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]


def _at_home(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + os.path.expanduser(value)


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
