"""What summary.json holds of a table, as values: written by experiments/tables/, read by the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mclr_fast.evaluation.rows import Kind, Row
from mclr_fast.runtime.formats import SUMMARY_FORMAT

from .summary import Stop

Settings = dict[str, Any]
"""Options of the objective or of training, by name."""


@dataclass(frozen=True)
class Tried:
    """A run with short evaluations: its lowest FD, and its rows over training, the base's first."""

    settings: Settings
    fd: float
    rows: Sequence[Row]
    stopped: Stop | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As summary.json holds it."""
        return {**vars(self), "rows": _json(self.rows), "stopped": self.stopped and asdict(self.stopped)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Tried:
        """What `to_json` gave."""
        return cls(**_named(cls, entry) | {"rows": _rows(entry["rows"]), "stopped": _stop(entry)})


@dataclass(frozen=True)
class Final:
    """A run with the full evaluations: its best checkpoint as judged, and its rows over training."""

    seed: int
    judged: Row
    curve: Sequence[Row]
    stopped: Stop | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As summary.json holds it."""
        rows = {"judged": self.judged.to_json(), "curve": _json(self.curve)}
        return {**vars(self), **rows, "stopped": self.stopped and asdict(self.stopped)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Final:
        """What `to_json` gave."""
        rows = {"judged": Row.from_json(entry["judged"]), "curve": _rows(entry["curve"])}
        return cls(**_named(cls, entry) | rows | {"stopped": _stop(entry)})


@dataclass(frozen=True)
class MethodResults:
    """An objective: its best settings, its formula, what was tried, and a final run a seed."""

    settings: Settings
    formula: str
    grid: Sequence[Tried]
    runs: Sequence[Final]

    def to_json(self) -> dict[str, Any]:
        """As summary.json holds it."""
        return {**vars(self), "grid": _json(self.grid), "runs": _json(self.runs)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> MethodResults:
        """What `to_json` gave."""
        grid, runs = [Tried.from_json(e) for e in entry["grid"]], [Final.from_json(e) for e in entry["runs"]]
        return cls(**_named(cls, entry) | {"grid": grid, "runs": runs})


@dataclass(frozen=True)
class Ablation:
    """One option of an objective varied, the others at the best of its grid; figure: the paper's."""

    figure: str
    objective: str
    option: str
    values: Sequence[float]
    chooses: bool
    settings: Settings
    runs: Sequence[Tried]

    def to_json(self) -> dict[str, Any]:
        """As summary.json holds it."""
        return {**vars(self), "runs": _json(self.runs)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Ablation:
        """What `to_json` gave."""
        return cls(**_named(cls, entry) | {"runs": [Tried.from_json(e) for e in entry["runs"]]})


@dataclass(frozen=True)
class TableSummary:
    """Every objective at the best of its grid.

    Attributes:
        rows: the real images', the base's without and with the best guidance, and all judged ones.
        guided: the base over guidance, on the samples that chose; methods: by objective.
        judged_on: first and last sampling seed of the judge.
    """

    recipe: str
    seeds: Sequence[int]
    images_seen: int
    seconds: float
    rows: Sequence[Row]
    guided: Sequence[Row]
    methods: Mapping[str, MethodResults]
    ablations: Sequence[Ablation]
    classifier: dict[str, Any] | None
    best: Row
    protocol: dict[str, Any]
    judged_on: Sequence[int]
    versions: dict[str, Any]

    def of(self, kind: Kind) -> list[Row]:
        """The rows of this kind."""
        return [row for row in self.rows if row.kind == kind]

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "format": SUMMARY_FORMAT,
            "kind": "table",
            "objective": "table",
            **vars(self),
            "rows": _json(self.rows),
            "guided": _json(self.guided),
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "ablations": _json(self.ablations),
            "best": self.best.to_json(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TableSummary:
        """What `to_json` gave, of today's format (`runtime.formats` brings older ones to it)."""
        typed = {
            "rows": _rows(content["rows"]),
            "guided": _rows(content["guided"]),
            "methods": {name: MethodResults.from_json(entry) for name, entry in content["methods"].items()},
            "ablations": [Ablation.from_json(entry) for entry in content["ablations"]],
            "best": Row.from_json(content["best"]),
        }
        return cls(**_named(cls, content) | typed)


def _json(values: Sequence[Any]) -> list[dict[str, Any]]:
    return [value.to_json() for value in values]


def _rows(entries: list[dict[str, Any]]) -> list[Row]:
    return [Row.from_json(entry) for entry in entries]


def _stop(entry: dict[str, Any]) -> Stop | None:
    found = entry["stopped"]
    return found and Stop(found["why"], found["images_seen"])


def _named(cls: type, entry: dict[str, Any]) -> dict[str, Any]:
    return {field.name: entry[field.name] for field in fields(cls)}
