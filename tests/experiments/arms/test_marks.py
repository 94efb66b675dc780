"""An arm's schedule: one list, in whole steps, the same whatever is asked for beside it."""

from dataclasses import replace

import pytest

from mclr_fast.config import TrainConfig
from mclr_fast.experiments.arms.arm import control_plan, trained_plan
from mclr_fast.experiments.arms.marks import Mark, make_marks
from mclr_fast.recipes import get_recipe

TRAIN = TrainConfig(duration=100, batch_size=12)


def at(marks, what):
    return [mark.images_seen for mark in marks if getattr(mark, what)]


def test_each_kind_comes_in_whole_steps_at_or_past_its_multiples():
    marks = make_marks(TRAIN, evaluate_every=30, refresh_every=40, snapshot_every=50)
    assert at(marks, "evaluate") == [36, 60, 96, 108]
    assert at(marks, "new_round") == [48, 84]
    assert at(marks, "snapshot") == [60, 108]
    assert [mark.images_seen for mark in marks] == [36, 48, 60, 84, 96, 108]
    assert marks[2] == Mark(60, snapshot=True, evaluate=True)


def test_milestones_are_kept_at_their_multiples_and_at_the_ends():
    marks = make_marks(TRAIN, milestone_every=50, earlier=(24,))
    assert at(marks, "milestone") == [24, 60, 108] and at(marks, "evaluate") == [24, 108]
    assert at(make_marks(TRAIN), "milestone") == []


@pytest.mark.parametrize(
    ("every", "protocol", "count"),
    [(None, None, 8), (None, "mnist16", 0), (0, None, 0), (640, None, 4), (640, "mnist16", 4)],
)
def test_a_run_that_nothing_judges_has_eight_milestones(every, protocol, count):
    """A judged one keeps its best model and each evaluation's samples; either as --milestone-every says."""
    config = get_recipe("mnist16")
    config = replace(config, protocol=protocol, train=replace(config.train, milestone_every=every))
    plan = trained_plan(config, judged=protocol is not None, refreshes=False)
    assert len(at(plan.marks, "milestone")) == count
    assert at(control_plan(config, judged=protocol is not None).marks, "milestone") == []


def test_the_end_is_always_a_mark_and_no_round_begins_there():
    assert make_marks(TRAIN) == [Mark(108, evaluate=True)]
    assert make_marks(TRAIN, refresh_every=99) == [Mark(108, evaluate=True)]
    assert make_marks(TRAIN, snapshot_every=500) == [Mark(108, evaluate=True, snapshot=True)]


def test_milestones_are_whole_steps():
    config = get_recipe("mnist16")
    for judged, expected in ((True, 8), (False, 1)):
        marks = trained_plan(config, judged=judged, refreshes=True).marks
        assert all(mark.images_seen % config.train.batch_size == 0 for mark in marks)
        assert marks[-1].images_seen == config.train.duration
        assert len(at(marks, "evaluate")) == expected


@pytest.mark.parametrize(("control", "count"), [("none", 0), ("last", 1), ("all", 8)])
def test_a_control_has_a_schedule_of_its_own(control, count):
    config = get_recipe("mnist16")
    options = {"eval": replace(config.eval, control=control)}
    plan = control_plan(
        replace(config, train=replace(config.train, ema_snapshot_every=64), **options), judged=True
    )
    assert (plan is None) == (control == "none")
    if plan is not None:
        assert len(at(plan.marks, "evaluate")) == count and not at(plan.marks, "snapshot")
        assert (plan.name, plan.kind, plan.config.objective.objective) == (
            "denoising",
            "control",
            "denoising",
        )
    base = get_recipe("mnist16-base")
    assert control_plan(replace(base, **options), judged=True) is None  # it trains with that loss anyway
