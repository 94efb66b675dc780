"""What is not finite stops the run, or is left out by request; it is never an update and never saved."""

import numpy as np
import pytest
import torch
from run_log import lines

from mclr_fast.runtime.errors import RunError


@pytest.fixture
def trainer(tmp_path, tiny):
    return lambda **train: tiny.tiny_trainer(tmp_path, tiny.tiny_config(**train), tiny.StopAfter(0))


def test_weights_that_are_not_finite_stop_the_run_and_are_never_saved(trainer, tmp_path):
    run = trainer(skip_bad_batches=5)  # it would not help
    run.train_until(24)
    run.save()
    with torch.no_grad():
        run.net.unet.out_gain.fill_(float("nan"))
    words = r"the loss is nan at step 3, 36 images, arm tiny \(unet.out_gain is not finite\): .*Last good "
    with pytest.raises(RunError, match=words + r"checkpoint: \S*states/000000000024\."):
        run.train_until(48)
    with pytest.raises(RunError, match=r"unet.out_gain is not finite at step 3.*: not saved"):
        run.save()
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["000000000024"]


def break_gradients(run, monkeypatch, at_images):
    """The gradient of one layer is infinite, with a finite loss, in the steps that begin there."""
    backward = run.placement.weights.backward

    def broken(*args):
        backward(*args)
        if run.images_seen in at_images:
            run.net.unet.out_conv.weight.grad[0, 0, 0, 0] = float("inf")

    monkeypatch.setattr(run.placement.weights, "backward", broken)


def test_gradients_that_are_not_finite_stop_the_run(trainer, monkeypatch):
    run = trainer()
    break_gradients(run, monkeypatch, {12})
    with pytest.raises(
        RunError, match=r"at step 2, 24 images.*the gradient of unet.out_conv.weight is not finite"
    ):
        run.train_until(48)
    assert run.optimizer.num_steps == 1


def test_bad_batches_are_skipped_by_request_and_counted(trainer, tmp_path, monkeypatch, capsys):
    run = trainer(skip_bad_batches=2, checkpoint_every=12)
    break_gradients(run, monkeypatch, {12, 36, 60})
    with pytest.raises(RunError, match=r"at step 6, 72 images.*--skip-bad-batches \(now 2\)"):
        run.train_until(72)
    assert run.skipped == 2
    assert run.optimizer.num_steps == 3
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning:" in line]
    assert ["skipped, 1 of 2 allowed" in warnings[0], "skipped, 2 of 2 allowed" in warnings[1]] == [
        True,
        True,
    ]
    again = trainer(skip_bad_batches=2, checkpoint_every=12)
    assert (again.images_seen, again.skipped) == (60, 2)
    log = lines(tmp_path)
    assert [line.get("skipped_batches") for line in log] == [None, 1, None, 2, None]
    assert np.isfinite([line["loss"] for line in log if "loss" in line]).all()
