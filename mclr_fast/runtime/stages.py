"""How far a stage of work is: a bar on a terminal; elsewhere a line at its end, and a few before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from tqdm import tqdm

EVERY = 300.0  # seconds between the lines of a stage that takes longer
UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


class Stage(Protocol):
    """What counts; as a context it begins and ends."""

    def __enter__(self) -> Stage: ...

    def __exit__(self, *_) -> None: ...

    def update(self, count: int) -> object:
        """So many more are done."""
        ...

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What else there is to say now."""
        ...


def progress_bar(
    description: str,
    total: int | None,
    initial: int,
    enabled: bool,
    unit: str = "images",
    scaled: bool = False,
) -> Stage:
    """A bar on stderr where that is a terminal, else its lines. scaled: counts as 1.2M."""
    if enabled and not on_terminal():
        return StageLines(description, total, initial, unit, scaled)
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        disable=not enabled,
        leave=False,
        unit=f" {unit}",
        unit_scale=scaled,
        dynamic_ncols=True,
        mininterval=0.2,
        smoothing=0.05,
    )


def on_terminal() -> bool:
    """Whether somebody watches stderr as it is written."""
    return sys.stderr.isatty()


class StageLines:
    """A stage in whole lines on stderr; one that fails says nothing, since its error does."""

    def __init__(
        self,
        description: str,
        total: int | None,
        initial: int,
        unit: str,
        scaled: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._description, self._total, self._unit, self._clock = description, total, unit, clock
        self._write = tqdm.format_sizeof if scaled else "{:,}".format
        self._first = self._count = initial
        self._postfix = ""
        self._began = self._said = clock()

    def __enter__(self) -> StageLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if kind is None:
            self._say(f"{self._write(self._count)} {self._unit} in {duration(self._elapsed)}")

    def update(self, count: int) -> None:
        """As `Stage.update`."""
        self._count += count
        now, done = self._clock(), self._count - self._first
        if now - self._said >= EVERY and done > 0 and self._total and self._count < self._total:
            self._said = now
            left = duration(self._elapsed * (self._total - self._count) / done)
            counts = f"{self._write(self._count)} of {self._write(self._total)} {self._unit}"
            self._say(f"{counts} in {duration(self._elapsed)}, {left} left")

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """As `Stage.set_postfix_str`."""
        self._postfix = text

    @property
    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _say(self, text: str) -> None:
        print(
            f"{self._description}: {text}" + (f", {self._postfix}" if self._postfix else ""), file=sys.stderr
        )


def duration(seconds: float) -> str:
    """In words of two units at most: 0.3 s, 12 s, 3 min 05 s, 2 h 05 min, 3 d 04 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small, small_unit in UNITS:
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small:02} {small_unit}"
    return f"{whole} s"
