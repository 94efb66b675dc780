"""Fixtures shared by all tests."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
GOLDEN = Path(__file__).parent / "golden"
PROGRAMS = Path(__file__).parent / "programs"
HELPERS = Path(__file__).parent / "helpers"
sys.path[:0] = [
    str(Path(__file__).parent),
    str(HELPERS),
    str(PROGRAMS),
]  # mutants; stand_ins; tiny_run and the like


@pytest.fixture(scope="session")
def golden():
    """`golden(stem)`: the arrays of tests/golden/<stem>.npz, recorded from reference programs."""
    return lambda stem: np.load(GOLDEN / f"{stem}.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def load_example():
    """`load_example(name)`: the module examples/<name>.py, read anew."""

    def load(name):
        path = Path(__file__).parents[1] / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(autouse=True)
def signal_handlers():
    """The doors install handlers; each test gives back what was there, so that pytest can be ended."""
    saved = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


@pytest.fixture
def mark(tmp_path):
    """A file that only code of a pickle would make."""
    return tmp_path / "code-ran"


@pytest.fixture
def theirs(tmp_path, mark):
    """An EDM2 network, its snapshot, whose source would leave the mark, and its training state."""
    from stand_ins import ARGUMENTS, snapshot, training_state

    from mclr_fast.models.edm2 import Precond

    torch.manual_seed(0)
    net = Precond(**ARGUMENTS)
    with torch.no_grad():
        net.unet.out_gain.fill_(0.5)
    snapshot_path, state_path = tmp_path / "net.pkl", tmp_path / "training-state-0000004.pt"
    snapshot_path.write_bytes(snapshot(net, ARGUMENTS, f"open({str(mark)!r}, 'w')"))
    state_path.write_bytes(training_state(net))
    return net, snapshot_path, state_path


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory):
    """The folder of an AutoencoderKL with random weights that halves images."""
    diffusers = pytest.importorskip(
        "diffusers", reason="latents are made with diffusers: pip install 'mclr_fast[latents]'"
    )
    folder = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[4, 4],
            norm_num_groups=2,
            latent_channels=4,
        ).save_pretrained(folder)
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """{extractor: file} of the extractors' stand-ins, which are in their place."""
    from extractor_stand_ins import put_in_place

    return put_in_place(tmp_path, monkeypatch)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine; downloads go to an empty cache, by no proxy."""
    from file_server import serving

    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def tiny():
    """The module tiny_run."""
    import tiny_run

    return tiny_run


@pytest.fixture(scope="session")
def on_ranks():
    """on_ranks(num_ranks, *command, restarts=0, **environment): what torchrun gave, one thread a rank.

    command: a program and its arguments, or "-m", a module and its.
    """

    def run(num_ranks, *command, restarts=0, **environment):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        return subprocess.run(
            [sys.executable, *torchrun, f"--max-restarts={restarts}", *map(str, command)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=600,  # seconds: ends a hang
        )

    return run


@pytest.fixture(scope="session")
def on_two_ranks(on_ranks):
    """on_two_ranks(*command): run it under torchrun on two ranks, to its good end."""

    def run(*command):
        done = on_ranks(2, *command)
        assert done.returncode == 0, done.stderr[-4000:]

    return run


@pytest.fixture
def files(tmp_path, tiny):
    """tmp_path with the tiny base as a model, `base`, and the tiny data as a zip, `data.zip`."""
    from zips import write_zip

    from mclr_fast.models import describe, save_model

    save_model(tmp_path / "base", tiny.tiny_net().state_dict(), describe(tiny.NET))
    data = tiny.TinyData()
    write_zip(tmp_path / "data.zip", data.images(range(len(data))), data.labels)
    return tmp_path


@pytest.fixture
def run_config(files, tiny):
    """run_config(outdir, objective, train={}, **objective options): a run's configuration, on `files`."""
    from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig

    def make(outdir, objective="mclr", train=(), **options):
        settings = {"duration": 6 * tiny.BATCH, "batch_size": tiny.BATCH, "lr": 1e-3, "precision": "fp32"}
        settings["milestone_every"] = 0
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
            time_steps="off",
        )

    return make


@pytest.fixture
def tiny_run(run_config, tiny, monkeypatch):
    """tiny_run(outdir, objective, stop_after=0, train={}, **objective options): a Run on `files`."""
    from mclr_fast.experiments import run as run_module
    from mclr_fast.runtime.process.ranks import Ranks

    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)  # takes a second

    def make(outdir, objective="mclr", stop_after=0, train=(), **options):
        config = run_config(outdir, objective, train, **options)
        return run_module.Run(config, Ranks("cpu"), tiny.StopAfter(stop_after))

    return make


@pytest.fixture
def fused_ops():
    """The test skips itself where the CPU's ops are not the fused ones."""
    from mclr_fast import ops
    from mclr_fast.ops import _choice

    for found in (ops.implementations()[0], _choice.available("modulate_silu", "cpu")):
        if found.implementation == "reference":
            pytest.skip(f"no fused ops here: {found.reason}")


def pytest_collection_modifyitems(items):
    """Tests marked gpu skip themselves where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
