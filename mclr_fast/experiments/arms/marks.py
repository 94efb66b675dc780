"""When training pauses, and what for: an arm's whole schedule as one list, made from the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mclr_fast.config import RunConfig, TrainConfig

COUNT = 8  # milestones of a run that does not say how many images lie between them


@dataclass(frozen=True)
class Mark:
    """A number of images seen at which an arm pauses, and what is done there, in this order.

    Attributes:
        images_seen: whole steps.
        snapshot: every average is kept.
        milestone: the average is kept as a model, and its samples.
        evaluate: the average is evaluated (or the state saved, where nothing judges).
        new_round: the average becomes the reference.
    """

    images_seen: int
    snapshot: bool = False
    milestone: bool = False
    evaluate: bool = False
    new_round: bool = False


def make_marks(
    train: TrainConfig,
    *,
    evaluate_every: int = 0,
    refresh_every: int = 0,
    snapshot_every: int = 0,
    milestone_every: int = 0,
    earlier: Sequence[int] = (),
) -> list[Mark]:
    """An arm's marks, in order; each kind after every so many images, in whole steps, and 0 = never.

    The end is always a mark, and evaluated; a snapshot or a milestone is kept there if any is, and no round
    begins. So are the ends of the shorter durations that the run had earlier, but that a round may begin
    there.
    """

    def whole_steps(images: int) -> int:
        return -(-images // train.batch_size) * train.batch_size

    def multiples(every: int) -> set[int]:
        return {whole_steps(images) for images in range(every, train.duration, every)} if every else set()

    end = whole_steps(train.duration)
    ends = {end, *map(whole_steps, earlier)}
    evaluated = multiples(evaluate_every) | ends
    kept = multiples(snapshot_every) | (ends if snapshot_every else set())
    milestones = multiples(milestone_every) | (ends if milestone_every else set())
    refreshed = multiples(refresh_every) - {end}
    return [
        Mark(
            seen,
            snapshot=seen in kept,
            milestone=seen in milestones,
            evaluate=seen in evaluated,
            new_round=seen in refreshed,
        )
        for seen in sorted(evaluated | kept | milestones | refreshed)
    ]


def milestone_every(config: RunConfig) -> int:
    """Images between milestones; 0 = none: an evaluation keeps the best model and its samples anyway."""
    every = config.train.milestone_every
    if every is not None:
        return every
    return 0 if config.is_judged else -(-config.train.duration // COUNT)
