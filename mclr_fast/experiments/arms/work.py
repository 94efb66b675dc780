"""What a run is made of, counted from its options: images to train on, samples to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mclr_fast.config import RunConfig
from mclr_fast.evaluation.rows import Row
from mclr_fast.methods.registry import make_method

from .arm import CONTROL, control_plan, trained_plan


@dataclass(frozen=True)
class Work:
    """All of a run that goes to its end; a guided sample counts as two.

    Attributes:
        images: of training, by arm, in their order; columns: evaluations an image, by arm.
        samples: of the rows on the way and after; final_samples: of the final rows.
    """

    images: Mapping[str, int]
    columns: Mapping[str, int]
    samples: int
    final_samples: int


def work_of(config: RunConfig) -> Work:
    """That of one run. Held-out images, and what an objective needs beside its network, are left out."""
    control = control_plan(config, judged=True)
    plans = [*([control] if control else []), trained_plan(config, judged=True, refreshes=False)]
    images = {plan.name: config.train.duration for plan in plans}
    columns = {plan.name: _columns(plan.config) for plan in plans}
    if not config.is_judged:
        return Work(images, columns, 0, 0)
    options, fine_tunes = config.eval, config.objective.objective != CONTROL
    marks = sum(mark.evaluate for plan in plans for mark in plan.marks)
    single = marks + fine_tunes * (1 + len(options.dial))
    double = fine_tunes * (len(options.cfg_scales) + len(options.best_cfg_scales))
    ends = 2 + (control is not None) + 2 * (bool(options.cfg_scales) + bool(options.best_cfg_scales))
    return Work(
        images,
        columns,
        options.num_samples * (single + 2 * double),
        options.final_samples * ends * fine_tunes,
    )


def samples_of(row: Row) -> int:
    """What a row counts of `Work`'s samples."""
    return 0 if row.kind == "real" else row.samples * (1 if row.guidance == row.unguided else 2)


def _columns(config: RunConfig) -> int:
    return len(make_method(config.objective).columns.kinds(config.objective.num_negatives))
