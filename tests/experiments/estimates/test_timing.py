"""A dry run's hours on this machine: few steps and samples, on a clock that the tests move."""

from dataclasses import replace

import pytest
import torch

from mclr_fast.experiments.estimates import timing as module
from mclr_fast.experiments.estimates.cost import planned_cost
from mclr_fast.experiments.estimates.dry_run import dry_run
from mclr_fast.experiments.estimates.timing import BUDGET, Timing, time_run, timing_lines
from mclr_fast.methods.registry import METHODS
from mclr_fast.models import Model, describe
from mclr_fast.recipes import get_recipe
from mclr_fast.training.memory import StepMemory

CPU = torch.device("cpu")


def var_step(num_images):
    """CCA on the embedded VAR, on so many images."""
    config = get_recipe("mnist16-var")
    objective = replace(config.objective, objective="cca", pairing="labels")
    net = get_recipe("mnist16-var-base").net
    config = replace(config, objective=objective)
    return config, StepMemory(config, Model.of(describe(net, config.family)), num_images)


@pytest.fixture
def counted(run_config, tiny):
    """counted(objective): a tiny run that samples two images at once, and its step."""

    def make(objective="mclr", **options):
        config = run_config("run", objective, **options)
        config = replace(config, eval=replace(config.eval, sample_batch=2))
        return config, StepMemory(config, tiny.MODEL)

    return make


@pytest.mark.parametrize("objective", METHODS)
def test_a_step_of_every_objective_can_be_timed(counted, objective):
    found = time_run(*counted(objective), CPU)
    assert found.image > 0 and found.sample > 0


def test_a_step_whose_reference_is_kept_is_timed_without_its_own_labels():
    """A VAR's fixed energies are made once of every image: `StepMemory` is told how many there are."""
    _, step = var_step(num_images=None)
    kept_config, kept = var_step(num_images=8)
    assert kept.keeps_own_energies and not step.keeps_own_energies
    assert time_run(kept_config, kept, CPU, samples=False).image > 0


def test_what_a_machine_is_too_slow_for_is_not_built(monkeypatch):
    """EDM2-S on a CPU: one line says that it was not timed."""
    config = get_recipe("edm2-img64-s")
    step = StepMemory(config, Model.of(describe(config.net, config.family)))
    monkeypatch.setattr(module, "_network", None)
    assert time_run(config, step, CPU) is None
    (line,) = timing_lines(config, step, planned_cost(config, step)[0], None, CPU, 1)
    assert line.startswith("hours here      not timed: ") and "TFLOP an image are too many for cpu" in line


def test_hours_are_of_both_arms_and_all_rows_at_the_speeds_measured():
    """mnist16: 2,560 images of 4 columns and of 1, and 62,000 samples, where guided ones count twice."""
    config = get_recipe("mnist16")
    net = get_recipe("mnist16-base").net
    step = StepMemory(config, Model.of(describe(net)))
    cost, _ = planned_cost(config, step)
    timing = Timing(image=0.36, sample=0.18)
    (line,) = timing_lines(config, step, cost, timing, CPU, 1)
    training, rows = 2560 * 1.25 * 0.36 / 3600, 62_000 * 0.18 / 3600
    assert f"{training + rows:.3g} = training {training:.3g}, rows {rows:.3g}, final rows 0" in line
    assert "2.78 images/s, 5.56 samples/s" in line
    (shared,) = timing_lines(config, step, cost, timing, CPU, 2)
    assert f"{(training + rows) / 2:.3g} = training" in shared and " on 2 x cpu" in shared
    (half,) = timing_lines(config, step, cost, Timing(0.36, None), CPU, 1)
    assert f"training {training:.3g}, rows not timed" in half


def test_as_many_at_once_as_the_budget_allows(monkeypatch):
    """One alone first; a hundred take a hundredth of it each on a device that is not full."""
    now, asked = [0.0], []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def work(count):
        asked.append(count)
        now[0] += cost

    cost = 0.001
    assert module._seconds_a_piece(work, 100, CPU) == pytest.approx(0.001 / 100)
    assert asked == [1] * 3 + [100] * 3
    cost = BUDGET
    asked.clear()
    assert module._seconds_a_piece(work, 100, CPU) == pytest.approx(BUDGET) and asked == [1] * 3


def test_timing_can_be_left_out_and_leaves_nothing_behind(run_config, monkeypatch):
    """No hours without it; with it random numbers and threads are as before."""
    config = run_config("run")
    off = dry_run(config)
    assert config.time_steps == "off" and "hours here" not in off and "\ndisk   " in off
    torch.manual_seed(1)
    before = torch.get_rng_state()
    on = dry_run(replace(config, time_steps="on", eval=replace(config.eval, sample_batch=2)))
    assert "\nhours here      " in on and torch.equal(torch.get_rng_state(), before)
