"""Runs judged by a classifier of their own data: trained once, kept with the run, and named in every row."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from zips import write_zip

from mclr_fast import evaluate
from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.evaluation import judge, own_classifier
from mclr_fast.evaluation.own_classifier import Training
from mclr_fast.experiments import run
from mclr_fast.experiments.estimates.dry_run import dry_run
from mclr_fast.experiments.run import Run
from mclr_fast.models import describe, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.reports.several_runs import read_runs
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

NET = dict(
    img_resolution=16, img_channels=1, label_dim=4, model_channels=8, channel_mult=[1], num_blocks=1,
    attn_resolutions=[], channels_per_head=8, logvar_channels=8,
)  # fmt: skip
SAMPLES = 66


def patches(num_images, seed=0):
    """Images whose bright quarter is their class, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 4
    images = rng.integers(0, 120, (num_images, 1, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[:, row : row + 8, column : column + 8] += 100
    return images, labels


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run of two steps on 160 images in data.zip, judged at each; nothing long."""
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_classifier, "TRAINING", Training(usual_images=2000, most_epochs=12))
    quick = partial(judge.bootstrap_frechet_difference, num_resamples=20)
    monkeypatch.setattr(judge, "bootstrap_frechet_difference", quick)
    torch.manual_seed(0)
    save_model(tmp_path / "base", Precond(**NET).state_dict(), describe(NET))
    write_zip(tmp_path / "data.zip", *patches(160))
    return RunConfig(
        recipe="own",
        outdir=tmp_path / "run",
        data=str(tmp_path / "data.zip"),
        init=str(tmp_path / "base"),
        protocol="classifier",
        objective=ObjectiveConfig(objective="mclr", P_mean=0.0, P_std=0.5),
        train=TrainConfig(duration=16, batch_size=8, precision="fp32", warmup_images=0),
        eval=EvalConfig(num_steps=2, num_samples=SAMPLES, eval_every=8, control="last", grid_noises=2),
        device="cpu",
    )


def executed(config):
    return Run(config, Ranks("cpu"), StopRequest()).execute()


def test_a_run(config, capsys, monkeypatch):
    """Every row has all metrics and the classifier's name; its accuracy is in the summary and the report."""
    said = dry_run(config)
    assert "a classifier of 144 images of" in said and "to be trained first, 27 steps" in said
    summary = executed(config)
    assert [row.kind for row in summary.rows] == ["real", "base", "control", "trained", "trained"]
    about = summary.protocol["protocols"]["classifier"]
    assert (about["train_images"], about["heldout_images"], about["num_classes"]) == (144, 16, 4)
    assert about["accuracy"] > 0.9 and about["reference"]["num_images"] == 144
    for row in summary.rows:
        assert row.classifier == about["weights"] and row.fd > 0
        assert set(row.metrics["classifier"]) == {
            "fd", "fd_heldout", "is", "precision", "recall", "accuracy"
        }  # fmt: skip
    real, base, *_ = summary.rows
    assert real.samples == 16 and real.values["fd_heldout"] is None and base.values["fd_heldout"] > 0
    assert real.values["accuracy"] == about["accuracy"] and real.fd < base.fd
    assert set(summary.comparison) == {"base", "denoising"}
    page = (config.outdir / "report.html").read_text()
    assert "was trained on 144 real images, and gets" in page and about["weights"][:12] in page
    said = capsys.readouterr().out
    assert said.count("training one on 144 images") == 1 and "of 16 held-out images right" in said

    # The run's folder alone goes on with it; the door says what the report says.
    for file in (config.outdir.parent / "cache").rglob("*.safetensors"):
        file.unlink()
    monkeypatch.setattr(run, "write_report", lambda outdir: None)  # is there, and takes seconds
    assert executed(config).to_json()["rows"] == summary.to_json()["rows"]
    assert f"kept at {config.outdir}" in dry_run(config)
    capsys.readouterr()
    model = str(config.outdir / "checkpoints" / "best")
    assert evaluate.main([model, "--device", "cpu", "--precision", "fp32"]) == 0
    said = capsys.readouterr().out
    assert "training" not in said
    row = json.loads(said.splitlines()[-1])
    assert row["metrics"] == summary.best.metrics and row["classifier"] == about["weights"]


def test_rows_of_two_classifiers_are_not_laid_side_by_side(config, monkeypatch):
    """A run does not go on with another's rows, and no page holds those of both."""
    monkeypatch.setattr(run, "write_report", lambda outdir: None)  # takes seconds
    executed(config)
    write_zip(config.outdir.parent / "data.zip", *patches(160, seed=1))
    other = replace(config, outdir=config.outdir.parent / "other")
    executed(other)
    with pytest.raises(ValueError, match="run and other were judged by different classifiers"):
        read_runs([config.outdir, other.outdir])
    for file in (config.outdir / "evaluations").glob("base-*"):
        file.rename(other.outdir / "evaluations" / file.name)
    with pytest.raises(RunError, match="was judged by another classifier"):
        executed(other)


def test_what_it_cannot_judge(config, tmp_path):
    """Latents have no pixels to see; data of one class are found before anything is trained."""
    write_zip(tmp_path / "latents.zip", np.zeros((40, 8, 2, 2), np.float32), np.arange(40) % 4)
    latents = NET | dict(img_resolution=2, img_channels=4)
    save_model(tmp_path / "latent", Precond(**latents).state_dict(), describe(latents))
    of_latents = replace(config, data=str(tmp_path / "latents.zip"), init=str(tmp_path / "latent"))
    for start in (dry_run, executed):
        with pytest.raises(RunError, match=r"latents\.zip holds VAE latents, and protocol classifier sees"):
            start(of_latents)
    write_zip(tmp_path / "data.zip", *patches(36))
    for start in (dry_run, executed):
        with pytest.raises(RunError, match=r"class 0 .* has 9 images; protocol classifier needs at least 10"):
            start(config)
    assert not (config.outdir / "log.jsonl").exists()
