"""A family that the package has never heard of trains, resumes and is judged, by registering itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_family as toy

from mclr_fast import evaluate
from mclr_fast.experiments import run as run_module
from mclr_fast.experiments.run import Run
from mclr_fast.models import Model, describe, load, save_model
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.process.ranks import Ranks

OBJECTIVES = ("mclr", "cca", "ccdpo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, on_two_ranks):
    """`base`, a model; `two/<objective>`, fine-tuned from it on two ranks in micro-batches."""
    folder = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    save_model(folder / "base", toy.Pixels(**toy.NET).state_dict(), describe(toy.NET, "toy"))
    (folder / "two").mkdir()
    (folder / "two" / "base").symlink_to(folder / "base")
    on_two_ranks(toy.__file__, folder / "two", *OBJECTIVES)
    return folder


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)  # takes a second


def losses(outdir, arm):
    lines = map(json.loads, (outdir / "log.jsonl").read_text().splitlines())
    return np.array([line["loss"] for line in lines if line["arm"] == arm])


def fine_tuned(folder, outdir, objective, tiny, stop_after=0, **train):
    config = toy.run_config(outdir, objective, folder / "base", **train)
    return Run(config, Ranks("cpu"), tiny.StopAfter(stop_after)).execute()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_trained_and_judged_on_one_rank_as_on_two(folder, tmp_path, tiny, objective):
    summary = fine_tuned(folder, tmp_path / "one", objective, tiny)
    two = folder / "two" / objective
    for arm in (objective, "denoising"):
        one = losses(tmp_path / "one", arm)  # differences of energies of some 250
        np.testing.assert_allclose(one, losses(two, arm), rtol=1e-5, atol=1e-3)
    kinds = [row.kind for row in summary.rows]
    assert kinds == ["real", "base", "guidance", "control", "trained", "trained"]
    assert [row.name for row in summary.rows[-2:]] == [objective] * 2
    assert all(row.nfe == 1 for row in summary.rows[1:])
    theirs = json.loads((two / "summary.json").read_text())["rows"]
    for row, other in zip(summary.rows, theirs, strict=True):
        assert row.fd == pytest.approx(other["fd"], rel=1e-3)


def test_mclr_makes_an_image_likelier_under_its_own_class_than_under_others(folder, tmp_path, tiny):
    fine_tuned(folder, tmp_path / "run", "mclr", tiny, lr=0.5)
    lines = list(map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines()))
    first, *_, last = (line for line in lines if line["arm"] == "mclr")
    assert last["negative"] - last["positive"] > first["negative"] - first["positive"] + 10


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_first_loss_is_the_formula(folder, tmp_path, tiny, objective):
    """In float64, on the first minibatch, every evaluation by itself."""
    run = Run(toy.run_config(tmp_path, objective, folder / "base"), Ranks("cpu"), tiny.StopAfter(0))
    trainer = tiny_trainer(run, tmp_path)
    rows, net = trainer.source.draw(0), load(folder / "base").double()
    x = rows.x[:, None] if rows.shared else rows.x
    target = (x.double().expand(*rows.labels.shape, 1, 16, 16) + 1) / 2
    p = net.logits[rows.labels].sigmoid()
    energy = -(target * p.log() + (1 - target) * (1 - p).log()).flatten(2).sum(2)
    expected = trainer.method.objective(energy, energy.detach()).loss_N.mean().item()
    assert trainer.step(0).loss == pytest.approx(expected, rel=1e-5)


def tiny_trainer(run, outdir):
    """The trainer of a run's own arm, which has not stepped."""
    from mclr_fast.experiments.arms.arm import Arm, trained_plan

    plan = trained_plan(run.config, judged=False, refreshes=False)
    places = (outdir, run.ranks, run.watch, run.stop)
    arm = Arm(plan, run.description, run._build, run.dataset, None, run.needs, *places)
    arm.rounds.enter()
    return arm.trainer


def test_resumed_with_the_same_losses_and_weights(folder, tmp_path, tiny):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fine_tuned(folder, whole, "cca", tiny)
    for stop_after in (3, 20):  # a look a step, and one a batch of samples
        with pytest.raises(Interrupted):
            fine_tuned(folder, parts, "cca", tiny, stop_after)
    fine_tuned(folder, parts, "cca", tiny)
    assert (losses(whole, "cca") == losses(parts, "cca")).all()
    finals = (load(outdir / "checkpoints" / "final-cca").logits for outdir in (whole, parts))
    assert torch.equal(*finals)


def test_a_base_from_nothing(tmp_path, tiny):
    """With its own loss, -log p, under the class: the base is fitted."""
    run = Run(toy.run_config(tmp_path, "denoising", lr=0.5), Ranks("cpu"), tiny.StopAfter(0))
    run.execute()
    found = losses(tmp_path, "denoising")
    assert len(found) == toy.STEPS and found[-1] < 0.8 * found[0]


def test_the_evaluate_door_judges_it(folder, capsys):
    assert evaluate.main([str(folder / "base"), "--num-samples", "20", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["samples"] == 20 and row["fd"] > 0


@pytest.mark.parametrize(("objective", "word"), [("gft", "denoiser"), ("weighted-mclr", "noise")])
def test_what_it_cannot_give_is_asked_for_in_one_line(folder, tmp_path, tiny, objective, word):
    config = toy.run_config(tmp_path / "run", objective, folder / "base")
    with pytest.raises(
        RunError, match=f"--objective {objective} needs a {word}, which toy models do not give"
    ):
        Run(config, Ranks("cpu"), tiny.StopAfter(0))


def test_a_reference_of_another_family_is_refused(folder, tmp_path, tiny):
    config = toy.run_config(tmp_path / "run", "cca", folder / "base")
    config = replace(config, objective=replace(config.objective, reference="mnist16-base"))
    with pytest.raises(RunError, match=r"mnist16-base is of another family: edm2, the .* network's toy"):
        Run(config, Ranks("cpu"), tiny.StopAfter(0))


def test_it_says_what_it_is_of():
    assert Model.of(describe(toy.NET, "toy")).facts.num_classes == 10
