"""What summary.json holds of a run or a proof, as values: written by experiments/, read by the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mclr_fast.evaluation.rows import Kind, Row
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.formats import SUMMARY_FORMAT

Interval = Sequence[float]
"""A difference, and the two ends of its 95% interval."""


@dataclass(frozen=True)
class Stop:
    """Why and when a training was ended before its time."""

    why: str
    images_seen: int


@dataclass(frozen=True)
class SeedResult:
    """A proof's result of one seed: three rows on samples that chose nothing, and FD(trained) - FD(other)."""

    seed: int
    base: Row
    control: Row
    trained: Row
    fd_minus_base: Interval
    fd_minus_control: Interval
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """An entry of summary.json's "proof": keyed by the rows' names."""
        return {
            "seed": self.seed,
            **{row.name: row.to_json() for row in (self.base, self.control, self.trained)},
            f"fd_minus_{self.base.name}": list(self.fd_minus_base),
            f"fd_minus_{self.control.name}": list(self.fd_minus_control),
            "passed": self.passed,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> SeedResult:
        """What `to_json` gave."""
        rows = [Row.from_json(value) for value in entry.values() if isinstance(value, dict)]
        base, control, trained = (
            next(row for row in rows if row.kind == kind) for kind in ("base", "control", "trained")
        )
        return cls(
            entry["seed"],
            base,
            control,
            trained,
            entry[f"fd_minus_{base.name}"],
            entry[f"fd_minus_{control.name}"],
            entry["passed"],
        )


@dataclass(frozen=True)
class Summary:
    """One run's results, or those of a proof.

    Attributes:
        settings: the objective with its settings, in words; images_seen: of the trained arm.
        seconds: of training and evaluating, over all calls of the run.
        turned_at: images seen at the lowest FD, where a later evaluation is worse.
        skipped_batches: by arm; classifier: how good the noise-conditional one is, where there is one.
        comparison: FD(best) - FD(other) with its interval, by the other's name.
        final: rows of more samples, of seeds that chose nothing, to compare with other work's.
        grid_seeds, grid_classes, grid_names: of the same-noise grid; the names are its classes'.
        protocol: what the rows were measured with: only rows with the same one compare.
        command: what was typed to start it; None where a program did.
        proof: one entry a seed, where it is a proof; its rows are the judged ones of all seeds.
    """

    recipe: str
    objective: str
    settings: str
    seed: int | None
    images_seen: int
    seconds: float
    rows: Sequence[Row]
    best: Row | None
    turned_at: int | None
    stopped: Stop | None
    skipped_batches: dict[str, int]
    classifier: dict[str, Any] | None
    comparison: dict[str, Interval]
    grid_seeds: Sequence[int] | None
    protocol: dict[str, Any] | None
    versions: dict[str, Any]
    proof: Sequence[SeedResult] = ()
    final: Sequence[Row] = ()
    grid_classes: Sequence[int] | None = None
    command: str | None = None
    grid_names: Sequence[str] | None = None

    def of(self, *kinds: Kind) -> list[Row]:
        """The rows of these kinds, in the order of the run."""
        return [row for row in self.rows if row.kind in kinds]

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        content = {
            "format": SUMMARY_FORMAT,
            "kind": "proof" if self.proof else "run",
            **vars(self),
            "rows": [row.to_json() for row in self.rows],
            "final": [row.to_json() for row in self.final],
            "best": self.best and self.best.to_json(),
            "stopped": self.stopped and asdict(self.stopped),
            "comparison": {name: list(interval) for name, interval in self.comparison.items()},
        }
        proof = {"proof": [entry.to_json() for entry in self.proof]} if self.proof else {}
        return {name: value for name, value in content.items() if name != "proof"} | proof

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Summary:
        """What `to_json` gave, of today's format (`runtime.formats` brings older ones to it).

        Fields that came to be within a format have their defaults where a file does not say them.
        """
        best, stopped = content["best"], content["stopped"]
        typed = {
            "rows": [Row.from_json(row) for row in content["rows"]],
            "final": [Row.from_json(row) for row in content.get("final", ())],
            "best": best and Row.from_json(best),
            "stopped": stopped and Stop(stopped["why"], stopped["images_seen"]),
            "proof": [SeedResult.from_json(entry) for entry in content.get("proof", ())],
        }
        known = cls.__dataclass_fields__.keys() - typed.keys()
        return cls(**{name: content[name] for name in known & content.keys()}, **typed)


def write_summary(outdir: Path, summary: Written) -> None:
    """Write outdir/summary.json, whole or not at all, of a run, a proof or a table."""
    write_json(outdir / "summary.json", summary.to_json())


class Written(Protocol):
    """What summary.json can hold: `Summary`, or `table_summary.TableSummary`."""

    def to_json(self) -> dict[str, Any]:
        """The content."""
        ...
