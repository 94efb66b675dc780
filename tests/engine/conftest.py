"""What the engine's tests share."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.engine import run as run_module
from mclr_fast.engine.checkpoint import save_model
from mclr_fast.engine.distributed import Ranks
from mclr_fast.engine.model_samples import write_zip
from mclr_fast.engine.run import Run
from mclr_fast.models import describe


@pytest.fixture(scope="session")
def tiny():
    """The module tiny_run.py."""
    spec = importlib.util.spec_from_file_location("tiny_run", Path(__file__).with_name("tiny_run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def on_two_ranks():
    """on_two_ranks(program, outdir): run a file of this folder under torchrun, one thread a rank."""

    def run(program, outdir):
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run(
            [sys.executable, *torchrun, str(program), str(outdir)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    return run


@pytest.fixture
def files(tmp_path, tiny):
    """tmp_path with the tiny base as a model, `base`, and the tiny data as a zip, `data.zip`."""
    save_model(tmp_path / "base", tiny.tiny_net().state_dict(), describe(tiny.NET))
    data = tiny.TinyData()
    write_zip(tmp_path / "data.zip", data.images(range(len(data))), data.labels)
    return tmp_path


@pytest.fixture
def run_config(files, tiny):
    """run_config(outdir, objective, train={}, **objective options): a run's configuration, on `files`."""

    def make(outdir, objective="mclr", train=(), **options):
        settings = {"duration": 6 * tiny.BATCH, "batch_size": tiny.BATCH, "lr": 1e-3, "precision": "fp32"}
        return RunConfig(
            recipe="tiny",
            outdir=files / outdir,
            data=str(files / "data.zip"),
            init=str(files / "base"),
            objective=ObjectiveConfig(
                objective=objective,
                **{"P_mean": 0.0, "P_std": 0.5, "model_samples": 8, "classifier_steps": 2, **options},
            ),
            train=TrainConfig(**settings | dict(train)),
            eval=EvalConfig(num_steps=2),
        )

    return make


@pytest.fixture
def tiny_run(run_config, tiny, monkeypatch):
    """tiny_run(outdir, objective, stop_after=0, train={}, **objective options): a Run on `files`."""
    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)  # takes a second

    def make(outdir, objective="mclr", stop_after=0, train=(), **options):
        config = run_config(outdir, objective, train, **options)
        return Run(config, Ranks("cpu"), tiny.StopAfter(stop_after))

    return make
