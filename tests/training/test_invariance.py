"""1 rank and 2 ranks, any micro-batch, fresh and resumed: the same losses (design.md, section 5)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_run

from mclr_fast.config import ObjectiveConfig
from mclr_fast.methods.registry import METHODS, make_method

PROGRAM = Path(tiny_run.__file__)
STEPS = 4


def losses(outdir, steps=STEPS):
    lines = [json.loads(line) for line in (outdir / "log.jsonl").read_text().splitlines()]
    assert [line["images_seen"] for line in lines] == [12 * (i + 1) for i in range(steps)]
    return np.array([line["loss"] for line in lines])


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny):
    """reference(objective): the losses of one rank, everything at once, uninterrupted."""
    root, made = tmp_path_factory.mktemp("reference"), {}

    def get(objective):
        if objective not in made:
            tiny.train(root / objective, objective, 0, STEPS, 0)
            made[objective] = losses(root / objective)
        return made[objective]

    return get


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Every objective on two ranks, in small parts, stopped by a signal in step 3 and resumed."""
    outdir = tmp_path_factory.mktemp("two")
    arguments = [str(PROGRAM), str(outdir), ",".join(METHODS), "16", str(STEPS), "3"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *torchrun, *arguments], env=env, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr[:4000]
    return outdir


@pytest.mark.parametrize("objective", METHODS)
@pytest.mark.parametrize(
    ("micro_batch", "steps", "stop_after"),
    [
        (20, STEPS, 2),  # whole rows, the last part smaller; stopped by a signal in step 2, then resumed
        (3, 1, 0),  # less than a row: cut by columns
    ],
)
def test_same_losses_in_parts(reference, tiny, tmp_path, objective, micro_batch, steps, stop_after):
    if not make_method(ObjectiveConfig(objective=objective)).separable:
        micro_batch = max(micro_batch, 4)  # a whole row
    tiny.train(tmp_path / "run", objective, micro_batch, steps, stop_after)
    np.testing.assert_allclose(losses(tmp_path / "run", steps), reference(objective)[:steps], rtol=1e-5)


@pytest.mark.parametrize("objective", METHODS)
def test_same_losses_on_two_ranks(reference, two_ranks, objective):
    np.testing.assert_allclose(losses(two_ranks / objective), reference(objective), rtol=1e-5)


@pytest.mark.parametrize("objective", METHODS)
def test_losses_move(reference, objective):
    """The comparisons above would pass for losses that never change; these do."""
    values = reference(objective)
    assert np.ptp(values) > 1e-3 * np.abs(values).max()
