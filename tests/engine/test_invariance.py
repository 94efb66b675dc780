"""1 rank and 2 ranks, any micro-batch, fresh and resumed: the same losses (design.md, section 5)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("tiny_run.py")
STEPS = 6


def losses(outdir, objective, micro_batch, num_ranks=1, stop_after=0):
    outdir.mkdir()
    arguments = [
        str(PROGRAM),
        str(outdir),
        objective,
        str(micro_batch),
        str(STEPS),
        str(stop_after),
    ]
    if num_ranks == 1:
        command = [sys.executable, *arguments]
    else:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        command = [sys.executable, *torchrun, *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr[:4000]
    lines = [json.loads(line) for line in (outdir / "log.jsonl").read_text().splitlines()]
    assert [line["images_seen"] for line in lines] == [12 * (i + 1) for i in range(STEPS)]
    return np.array([line["loss"] for line in lines])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The losses of one rank, everything at once, uninterrupted."""
    root = tmp_path_factory.mktemp("reference")
    return {name: losses(root / name, name, 0) for name in ("mclr", "denoising")}


@pytest.mark.parametrize(
    ("objective", "micro_batch", "num_ranks", "stop_after"),
    [
        ("mclr", 8, 1, 0),  # two rows at a time
        ("mclr", 32, 1, 0),
        ("mclr", 3, 1, 0),  # less than a row: cut by columns
        ("mclr", 8, 1, 3),  # stopped by a signal in step 3, then resumed
        ("mclr", 32, 2, 0),
        ("mclr", 8, 2, 4),
        ("denoising", 5, 2, 2),
    ],
)
def test_same_losses(reference, tmp_path, objective, micro_batch, num_ranks, stop_after):
    got = losses(tmp_path / "run", objective, micro_batch, num_ranks, stop_after)
    np.testing.assert_allclose(got, reference[objective], rtol=1e-5)


def test_losses_move(reference):
    """The comparison above would pass for losses that never change; these do."""
    for values in reference.values():
        assert np.ptp(values) > 0.1 * np.abs(values).max()
