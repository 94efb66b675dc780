"""One line of a run's table: what was scored, how, and what it scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mclr_fast.runtime.formats import protocol_name

Kind = Literal["real", "base", "guidance", "control", "trained", "guided", "dial", "images"]
Metrics = dict[str, float | None]
"""By metric, of METRICS or a protocol's own; None where it was not measured."""
METRICS = ("fd", "fd_heldout", "is", "precision", "recall", "accuracy")
OPTIONAL = ("strength", "seconds", "classifier")  # of a row, where they are known


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Attributes:
        name: what a reader calls it; nothing is ever read out of it.
        kind: what was scored: real images, the base, the base under guidance, the control, the trained model,
            that one "guided" or between it and the base ("dial"), or images not said to be a model's.
        images_seen: of training, since the base; 0 for those that were not trained.
        nfe: network calls a sample; samples: how many were scored.
        metrics: by protocol. `chosen_by` names the protocol whose FD chooses the best row of a run.
        guidance: its strength, in the words of the family's sampler; `unguided` is the one that is none
            (EDM2's g: 1; VAR's t: 0).
        strength: of the dial, where it is on one: 0 is the base, 1 the trained model; else None.
        seconds: what sampling and scoring took; None where that was not measured.
        classifier: the hash of the one that was trained to judge it, of protocol `classifier`; else None.
    """

    name: str
    kind: Kind
    images_seen: int
    nfe: int
    samples: int
    metrics: dict[str, Metrics]
    chosen_by: str
    guidance: float = 1.0
    unguided: float = 1.0
    strength: float | None = None
    seconds: float | None = None
    classifier: str | None = None

    @property
    def values(self) -> Metrics:
        """By metric: the value of the protocol that chooses, where it has none that of the first that has."""
        protocols = [self.metrics[self.chosen_by], *self.metrics.values()]
        merged: Metrics = {}
        for metrics in protocols:
            merged |= {name: value for name, value in metrics.items() if merged.get(name) is None}
        return merged

    @property
    def fd(self) -> float:
        """What chooses: the lowest is the best."""
        return self.metrics[self.chosen_by]["fd"]

    def timed(self, seconds: float | None) -> Row:
        """The same row with this time."""
        return replace(self, seconds=seconds)

    def to_json(self) -> dict[str, Any]:
        """As summary.json, evaluations and cfg.json hold it; `values` at the top too."""
        return {
            "name": self.name,
            "kind": self.kind,
            "guidance": self.guidance,
            "unguided": self.unguided,
            "images_seen": self.images_seen,
            "nfe": self.nfe,
            "samples": self.samples,
            **dict.fromkeys(METRICS),
            **self.values,
            "chosen_by": self.chosen_by,
            "metrics": self.metrics,
            **{name: value for name in OPTIONAL if (value := getattr(self, name)) is not None},
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Row:
        """What `to_json` gave, of today's format (`runtime.formats` brings older ones to it)."""
        names = ("name", "kind", "images_seen", "nfe", "samples")
        metrics = {protocol_name(name): values for name, values in row["metrics"].items()}
        judged = {"metrics": metrics, "chosen_by": protocol_name(row["chosen_by"])}
        strengths = {name: row[name] for name in ("guidance", "unguided")}
        optional = {name: row.get(name) for name in OPTIONAL}
        return cls(**{name: row[name] for name in names}, **judged, **strengths, **optional)


def lowest_fd(rows: Iterable[Row], kind: Kind) -> Row | None:
    """Of the rows of a kind the one of lowest FD, the first of equals; None where there is none."""
    return min((row for row in rows if row.kind == kind), key=lambda row: row.fd, default=None)
