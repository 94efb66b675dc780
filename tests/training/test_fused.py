"""Training on the fused ops and on the plain-torch reference: the same losses."""

import numpy as np
import pytest
import tiny_run as tiny
from run_log import column

from mclr_fast import ops

STEPS = 10


@pytest.mark.parametrize("objective", ["mclr", "denoising"])
@pytest.mark.parametrize(
    "train", [{}, {"micro_batch": 8}, {"dropout": 0.2}], ids=["plain", "micro", "dropout"]
)
def test_ten_steps_have_the_references_losses(tmp_path, objective, train):
    losses = {}
    for choice in ("reference", "auto"):
        outdir = tmp_path / choice
        outdir.mkdir()
        with ops.using(choice):
            config = tiny.tiny_config(objective, steps=STEPS, **train)
            tiny.tiny_trainer(outdir, config, tiny.StopAfter(0)).train_until(STEPS * tiny.BATCH)
        losses[choice] = column(outdir, "loss")
    assert len(losses["auto"]) == STEPS and np.ptp(losses["auto"]) > 0
    np.testing.assert_allclose(losses["auto"], losses["reference"], rtol=1e-4)
