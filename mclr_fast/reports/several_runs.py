"""Several runs as they are laid over each other: what each is called, and whether they can be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime import formats

from .run_data import RunData, read_run
from .words import COLUMNS, FD, Metric

UNLIKE = {"outdir", "seed", "note", "recipe"}  # said elsewhere


@dataclass(frozen=True)
class NamedRun:
    """A run, called by its folder; options: what it was told, by name, where its config.json is there."""

    name: str
    run: RunData
    options: dict[str, Any]

    @property
    def path(self) -> list[Row]:
        """The base, where there is one, then the trained model over training."""
        return [*([self.run.base] if self.run.base else []), *self.run.trained]

    @property
    def guided_best(self) -> Row | None:
        """The base under guidance where its FD is lowest."""
        return min((row for row in self.run.guided if row.fd is not None), key=FD.of, default=None)


def read_runs(outdirs: Sequence[Path]) -> list[NamedRun]:
    """The runs of these folders, in this order.

    Errors: those of `read_run`; ValueError for a folder named twice, a proof, and runs that were judged by
    different protocols, which no picture can hold.
    """
    names = _names(outdirs)
    runs = [NamedRun(name, read_run(path), _options(path)) for name, path in zip(names, outdirs, strict=True)]
    for run, path in zip(runs, outdirs, strict=True):
        if run.run.summary.proof:
            raise ValueError(
                f"{path} is a proof, of several runs: name its seeds' folders, {path}/seed-0 ..."
            )
    protocols = {row.chosen_by: run for run in runs for row in run.run.summary.rows}
    if len(protocols) > 1:
        (one, first), (other, second) = list(protocols.items())[:2]
        raise ValueError(
            f"{first.name} was judged by {one} and {second.name} by {other}: such numbers do not compare. "
            "Name runs of one protocol."
        )
    classifiers = {row.classifier: run for run in runs for row in run.run.summary.rows}
    if len(classifiers) > 1:
        first, second = list(classifiers.values())[:2]
        raise ValueError(
            f"{first.name} and {second.name} were judged by different classifiers (of other data, or trained "
            "anew elsewhere): such numbers do not compare. Judge their models again, by one: python -m "
            "mclr_fast.evaluate."
        )
    return runs


def _names(outdirs: Sequence[Path]) -> list[str]:
    """Of every folder as much of the end of its path as tells it from the others."""
    paths = [path.resolve().parts for path in outdirs]
    if len(set(paths)) < len(paths):
        twice = next(path for path, parts in zip(outdirs, paths, strict=True) if paths.count(parts) > 1)
        raise ValueError(f"{twice} is named twice.")
    length = next(n for n in range(1, max(map(len, paths)) + 1) if len({p[-n:] for p in paths}) == len(paths))
    return ["/".join(parts[-length:]) for parts in paths]


def _options(outdir: Path) -> dict[str, Any]:
    path = outdir / "config.json"
    try:
        return formats.config(json.loads(path.read_text(encoding="utf-8")), path)
    except (OSError, ValueError, TypeError, AttributeError):  # a page of what is there
        return {}


def alike(runs: Sequence[NamedRun]) -> list[tuple[list[Row], list[str]]]:
    """The guided rows that runs share, each curve once: (rows, the names of the runs that have it)."""
    return _once(runs, lambda run: run.run.guided)


def bases(runs: Sequence[NamedRun]) -> list[tuple[list[Row], list[str]]]:
    """The same of their bases."""
    return _once(runs, lambda run: [run.run.base] if run.run.base else [])


def _once(
    runs: Sequence[NamedRun], rows_of: Callable[[NamedRun], list[Row]]
) -> list[tuple[list[Row], list[str]]]:
    found: list[tuple[list[Row], list[str]]] = []
    for run in runs:
        rows = rows_of(run)
        values = [row.values for row in rows]
        same = next((names for other, names in found if [row.values for row in other] == values), None)
        if same is not None:
            same.append(run.name)
        elif rows:
            found.append((rows, [run.name]))
    return found


def different_options(runs: Sequence[NamedRun]) -> dict[str, list[str]]:
    """Option -> its value in every run, of those that are not the same in all; "" where it is not told."""
    if not all(run.options for run in runs):
        return {}
    names = dict.fromkeys(name for run in runs for name in run.options)
    values = {name: [_told(run.options.get(name)) for run in runs] for name in names if name not in UNLIKE}
    return {name: told for name, told in values.items() if len(set(told)) > 1}


def _told(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Repeated:
    """Runs that differ in their seed alone, two or more: names, seeds, and of each the row that counts."""

    names: list[str]
    seeds: list[int]
    rows: list[Row]

    def spread(self, metric: Metric) -> tuple[float, float] | None:
        """Mean and standard deviation (n-1) over the seeds; None where it was not measured."""
        values = [metric.of(row) for row in self.rows]
        return None if None in values else (fmean(values), stdev(values))


def repeated(runs: Sequence[NamedRun]) -> list[Repeated]:
    """Groups of the same run with several seeds: final rows of the kept checkpoint where all have them."""
    groups: dict[str, list[NamedRun]] = {}
    for run in runs:
        if run.options and run.run.best is not None:
            told = {name: value for name, value in run.options.items() if name not in UNLIKE}
            groups.setdefault(json.dumps(told, sort_keys=True), []).append(run)
    found = []
    for group in groups.values():
        seeds = [run.run.summary.seed for run in group]
        if len(set(seeds)) < len(seeds) or len(seeds) < 2:
            continue
        final = [[row for row in run.run.summary.final if row.kind == "trained"] for run in group]
        rows = [rows[0] for rows in final] if all(final) else [run.run.best for run in group]
        found.append(Repeated([run.name for run in group], seeds, rows))
    return found


def different_measures(runs: Sequence[NamedRun]) -> list[str]:
    """What of the protocol differs between the runs, in words: their rows compare only roughly."""
    protocols = [run.run.summary.protocol or {} for run in runs]
    keys = dict.fromkeys(key for protocol in protocols for key in protocol)
    told = {key: [protocol.get(key) for protocol in protocols] for key in keys}
    return [
        f"{key}: {', '.join(f'{_told(value)} ({run.name})' for value, run in zip(values, runs, strict=True))}"
        for key, values in told.items()
        if any(value != values[0] for value in values)
    ]


def measured(runs: Sequence[NamedRun]) -> list[Metric]:
    """The metrics that any row has."""
    rows = [row for run in runs for row in (*run.run.summary.rows, *run.run.summary.final)]
    return [m for m in COLUMNS if any(m.of(row) is not None for row in rows)]
