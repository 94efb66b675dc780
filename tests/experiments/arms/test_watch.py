"""Watching a run: log.txt, a line a milestone, and the time that is left of all of it."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mclr_fast.evaluation.rows import Row
from mclr_fast.experiments.arms.watch import TimeLeft, Watch
from mclr_fast.experiments.arms.work import Work, samples_of, work_of
from mclr_fast.recipes import get_recipe
from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.logs import RunLog

WORK = Work({"denoising": 100, "mclr": 100}, {"denoising": 1, "mclr": 4}, samples=60, final_samples=40)


def row(samples=20, kind="trained", seconds=None, guidance=1.0):
    return Row("x", kind, 0, 1, samples, {"p": {"fd": 1.0}}, "p", guidance=guidance, seconds=seconds)


def text_of(outdir):
    """The lines of log.txt without their times, which must be there."""
    lines = (outdir / "log.txt").read_text().splitlines()
    found = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (.*)", line) for line in lines]
    return [match[1] for match in found]


def test_a_run_s_work_is_counted_from_its_options():
    """mnist16: both arms; base, 8 marks, the control, 5 of the dial, 5 and 3 under guidance, twice."""
    work = work_of(get_recipe("mnist16"))
    assert list(work.images.items()) == [("denoising", 2560), ("mclr", 2560)]
    assert (work.columns["denoising"], work.columns["mclr"]) == (1, 4)
    assert work.samples == 2000 * (1 + 8 + 1 + 5 + 2 * (5 + 3)) and work.final_samples == 0
    alone = replace(get_recipe("mnist16"), protocol=None)
    assert work_of(alone).samples == 0


def test_a_guided_sample_counts_as_two_and_a_real_one_as_none():
    counted = [samples_of(r) for r in (row(), row(guidance=1.5), row(kind="real"))]
    assert counted == [20, 40, 0]


def test_time_left_is_of_both_arms_and_of_the_rows():
    left = TimeLeft(WORK)
    assert left.seconds() is None  # nothing is measured
    left.trained("denoising", 50, 0.1)
    assert left.seconds() is None  # no row is
    left.scored(row(seconds=10.0), timed=True)
    # The control's other 50 images, the other arm's 100 of four evaluations each, 80 samples.
    assert left.seconds() == pytest.approx(50 * 0.1 + 100 * 4 * 0.1 + 80 * 0.5)
    left.trained("denoising", 100, 0.1)
    left.trained("mclr", 75, 0.3)
    assert left.seconds() == pytest.approx(25 * 0.3 + 80 * 0.5)
    left.scored(row(80), timed=False)
    assert left.seconds() == pytest.approx(25 * 0.3)


def test_rows_that_were_stored_are_done_but_tell_no_rate():
    left = TimeLeft(Work({"mclr": 10}, {"mclr": 4}, 60, 0))
    left.trained("mclr", 10, 1.0)
    left.scored(row(20, seconds=1e6), timed=False)
    left.scored(row(20, seconds=2.0), timed=True)
    assert left.seconds() == pytest.approx(2.0)


def test_a_line_says_rate_waiting_and_what_is_left(tmp_path, capsys):
    config = replace(get_recipe("mnist16"), protocol=None)
    watch = Watch(config, RunLog(tmp_path / "log.jsonl"))
    words = ["1.5 ms a step waiting for data"]
    trainer = SimpleNamespace(
        arm="denoising", images_seen=0, seconds=0.0, lines=SimpleNamespace(words=lambda: words)
    )
    watch.begins(trainer)
    trainer.images_seen, trainer.seconds = 320, 3.2
    watch.milestone(trainer)
    watch.milestone(trainer)  # nothing was trained since
    line = (
        "denoising: 320 of 2,560 images, 100.0 images/s, 1.5 ms a step waiting for data, "
        "2 min 05 s left of the run"
    )
    assert text_of(tmp_path) == [line] == capsys.readouterr().out.splitlines()


def test_a_run_s_log_has_a_line_a_milestone(tiny_run, files, capsys):
    run = tiny_run("run", train={"checkpoint_every": 24})
    run.execute()
    lines = text_of(files / "run")
    assert lines[0].startswith("tiny: ") and lines[-1].startswith("finished: ")
    (milestone,) = (line for line in lines if line.startswith("mclr: 72 of 72 images, "))
    assert milestone.endswith(" s left of the run") and "images/s" in milestone
    assert all(line in capsys.readouterr().out for line in lines[:1])


def test_a_stopped_run_says_so_and_goes_on_in_the_same_log(tiny_run, files):
    with pytest.raises(Interrupted):
        tiny_run("run", stop_after=3).execute()
    assert text_of(files / "run")[-1] == "stopped by a signal"
    before = (files / "run" / "log.txt").read_text()
    tiny_run("run").execute()
    assert (files / "run" / "log.txt").read_text().startswith(before)
    assert text_of(files / "run")[-1].startswith("finished: ")


def test_a_run_that_fails_says_why(tiny_run, files, monkeypatch):
    run = tiny_run("run")
    monkeypatch.setattr(run, "_execute", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.execute()
    assert text_of(files / "run") == ["failed: division by zero"]


def test_other_ranks_write_and_say_nothing(capsys):
    RunLog(None).say("x")
    assert capsys.readouterr().out == ""
