"""One line of a run's table: what was scored, how, and what it scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["real", "base", "guidance", "control", "trained", "images"]
Metrics = dict[str, float | None]
"""By metric, of METRICS or a protocol's own; None where it was not measured."""
METRICS = ("fd", "fd_heldout", "is", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Attributes:
        name: what a reader calls it; nothing is ever read out of it.
        kind: what was scored: real images, the base, the base under guidance, the control, the trained model,
            or images that are not said to be a model's.
        images_seen: of training, since the base; 0 for those that were not trained.
        nfe: network calls a sample; samples: how many were scored.
        metrics: by protocol. `chosen_by` names the protocol whose FD chooses the best row of a run.
        guidance: its strength, in the words of the family's sampler; `unguided` is the one that is none
            (EDM2's g: 1; VAR's t: 0).
        seconds: what sampling and scoring took; None where that was not measured.
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
    seconds: float | None = None

    @property
    def chosen(self) -> Metrics:
        """The metrics of the protocol that chooses."""
        return self.metrics[self.chosen_by]

    @property
    def fd(self) -> float:
        """What chooses: the lowest is the best."""
        return self.chosen["fd"]

    def timed(self, seconds: float | None) -> Row:
        """The same row with this time."""
        return replace(self, seconds=seconds)

    def to_json(self) -> dict[str, Any]:
        """As summary.json, evaluations and cfg.json hold it; the choosing metrics at the top too."""
        return {
            "name": self.name,
            "kind": self.kind,
            "guidance": self.guidance,
            "unguided": self.unguided,
            "images_seen": self.images_seen,
            "nfe": self.nfe,
            "samples": self.samples,
            **dict.fromkeys(METRICS),
            **self.chosen,
            "chosen_by": self.chosen_by,
            "metrics": self.metrics,
            **({} if self.seconds is None else {"seconds": self.seconds}),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Row:
        """What `to_json` gave, of today's format (`runtime.formats` brings older ones to it)."""
        names = ("name", "kind", "images_seen", "nfe", "samples", "metrics", "chosen_by")
        strengths = {name: row[name] for name in ("guidance", "unguided")}
        return cls(**{name: row[name] for name in names}, **strengths, seconds=row.get("seconds"))
