"""When a run has gone too far: FD that no longer improves, or energies that run away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WINDOW = 8  # steps a mean is over: at 32 images a step it moves by some 5% where nothing changes
LEAST_GAP = 0.25  # of the positive energy; a gap that starts lower counts as this, or noise would stop it


class EnergyGuard:
    """Watches the mean positive energy and the gap (negative - positive) of the last WINDOW steps.

    The objectives are unbounded below: what they gain past the useful point they gain by raising all
    energies, the images' own too. `why` says so, in words, once either mean is above `factor` times its
    start, the mean over the first WINDOW steps.
    """

    def __init__(self, factor: float):
        """factor: how many times its start either mean may be; 0 = any."""
        self.factor = factor
        self.start: list[float] | None = None
        self.recent: list[list[float]] = []
        self.why: str | None = None

    def observe(self, positive: float, negative: float | None = None, **others: float) -> None:
        """Take in one step's mean energies over the global minibatch (so that every rank sees the same)."""
        gap = 0.0 if negative is None else negative - positive
        self.recent = [*self.recent, [positive, gap]][-WINDOW:]
        if len(self.recent) < WINDOW or self.factor == 0:
            return
        now = [sum(values) / WINDOW for values in zip(*self.recent, strict=True)]
        if self.start is None:
            self.start = [now[0], max(now[1], LEAST_GAP * now[0])]
        for name, value, start in zip(("energy of the images", "energy gap"), now, self.start, strict=True):
            if value > self.factor * start and self.why is None:
                self.why = (
                    f"the mean {name} over {WINDOW} steps rose to {value:.4g}, {value / start:.1f} times its "
                    f"start; --stop-factor allows {self.factor:g}"
                )

    def state(self) -> dict[str, Any]:
        """For the checkpoint, as JSON."""
        return {"start": self.start, "recent": self.recent, "why": self.why}

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.start, self.recent, self.why = state["start"], state["recent"], state["why"]


def out_of_patience(fds: Sequence[float], patience: int) -> str | None:
    """Why to stop after evaluations with these FDs, in words: `patience` of them without a new lowest.

    None while training may go on; always with patience 0.
    """
    best = min(range(len(fds)), key=fds.__getitem__, default=0)
    since = len(fds) - 1 - best
    if patience == 0 or since < patience:
        return None
    return f"FD has not improved for {since} evaluations; --patience allows {patience}"
