"""Contenders timed in turn within each round, since a machine's speed drifts within minutes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

clock = time.perf_counter
"""Or time.process_time, with --cpu-time."""


@dataclass(frozen=True)
class Times:
    """Seconds of one contender, one number a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        return interquartile_range(self.seconds) / self.median

    def ratios(self, other: Times) -> list[float]:
        """This contender's time over the other's, of the same round."""
        return [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]


def interquartile_range(values) -> float:
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def nothing() -> None:
    """What waits for a device that is never behind."""


def seconds_a_call(
    function: Callable[[], object], calls: int = 1, finish: Callable[[], object] = nothing
) -> float:
    """Of several calls, until `finish` has returned; what the function says itself if it returns a float."""
    start = clock()
    measured = [function() for _ in range(calls)]
    finish()
    total = clock() - start
    if isinstance(measured[0], float):
        total = sum(measured)
    return total / calls


def in_turn(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    finish: Callable[[], object] = nothing,
) -> dict[str, Times]:
    """Time the contenders in turn: a round is `calls` calls of each. One round to warm up is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + rounds):
        for name, function in contenders.items():
            seconds[name].append(seconds_a_call(function, calls, finish))
    return {name: Times(tuple(values[1:])) for name, values in seconds.items()}


def interleave(
    benchmark,
    ours: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    finish: Callable[[], object] = nothing,
) -> dict[str, Times] | None:
    """`in_turn`, with `ours` through pytest-benchmark, so that its table shows it. None if it is disabled."""
    seconds: dict[str, list[float]] = {name: [] for name in others}
    own: list[float] = []

    def run_others() -> None:
        for name, function in others.items():
            seconds[name].append(seconds_a_call(function, calls, finish))

    def run_ours() -> None:
        own.append(seconds_a_call(ours, calls, finish))

    benchmark.extra_info["calls_a_round"] = calls
    benchmark.pedantic(run_ours, setup=run_others, rounds=rounds, warmup_rounds=1, iterations=1)
    if benchmark.stats is None:
        return None
    kept = {name: Times(tuple(values[-rounds:])) for name, values in seconds.items()}
    return {"ours": Times(tuple(own[-rounds:])), **kept}


def record_times(benchmark, times: Mapping[str, Times]) -> None:
    """Medians in milliseconds and spreads, into the benchmark's extra_info."""
    benchmark.extra_info["milliseconds"] = {name: t.median * 1e3 for name, t in times.items()}
    benchmark.extra_info["spread"] = {name: t.spread for name, t in times.items()}
