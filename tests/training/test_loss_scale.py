"""float16 with a loss scale: right, skipped where it overflows, and resumed to the bit."""

import json

import numpy as np
import pytest
import tiny_run as tiny
import torch
from run_log import column, lines

from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.training import loss_scale
from mclr_fast.training.loss_scale import LossScale

BATCH = tiny.BATCH


def trainer(outdir, objective="mclr", stop_after=0, **train):
    outdir.mkdir(exist_ok=True)
    config = tiny.tiny_config(objective, **{"precision": "fp16", **train})
    return tiny.tiny_trainer(outdir, config, tiny.StopAfter(stop_after))


def gradients(run):
    """Of the first step, unscaled."""
    finite = run.step(0, run.loss_scale.value).finite
    return finite, {name: p.grad.clone() for name, p in run.optimizer.params.items()}


@pytest.mark.parametrize("objective", ["mclr", "ccdpo", "gft", "denoising"])
def test_gradients_are_those_of_float32(tmp_path, objective):
    """Whatever the scale was: within float16's rounding of the whole, and no part of it lost."""
    _, expected = gradients(trainer(tmp_path / "fp32", objective, precision="fp32"))
    run = trainer(tmp_path / "fp16", objective)
    finite, found = gradients(run)
    assert finite and run.net.dtype == torch.float16
    for name, truth in expected.items():
        if truth.numel() > 1:  # a gain's is a sum that cancels
            assert (found[name] - truth).norm() <= 0.03 * truth.norm() + 1e-6, name
    flat, truth = (torch.cat([g.flatten() for g in grads.values()]) for grads in (found, expected))
    assert (flat - truth).norm() <= 0.01 * truth.norm()


def test_the_scale_stays_between_its_ends():
    scale = LossScale(torch.float16)
    for _ in range(40):
        scale.observe(False)
    assert scale.value == loss_scale.LOWEST and scale.at_lowest and scale.skipped == 40
    for _ in range(40 * loss_scale.GROWTH_STEPS):
        scale.observe(True)
    assert scale.value == loss_scale.HIGHEST and not scale.at_lowest


def test_small_gradients_survive_by_the_scale(tmp_path):
    """Energies so small that their gradients vanish in float16 without it."""
    kept = {}
    for value in (2.0**16, 1.0):
        run = trainer(tmp_path / str(value))
        law = run.source.law
        run.source.law = lambda *key, law=law: law(*key) | {"weight": torch.full((BATCH,), 1e-6)}
        run.loss_scale.value = value
        _, found = gradients(run)
        kept[value] = sum(int((g != 0).sum()) for g in found.values())
    assert kept[2.0**16] > 1.05 * kept[1.0]


def test_losses_follow_float32(tmp_path):
    losses = {}
    for precision in ("fp32", "fp16"):
        outdir = tmp_path / precision
        trainer(outdir, precision=precision, steps=8).train_until(8 * BATCH)
        losses[precision] = column(outdir, "positive")
    np.testing.assert_allclose(losses["fp16"], losses["fp32"], rtol=5e-3)
    assert lines(tmp_path / "fp16")[0]["loss_scale"] == loss_scale.START
    assert "loss_scale" not in lines(tmp_path / "fp32")[0]


def test_micro_batches_do_not_matter(tmp_path):
    _, whole = gradients(trainer(tmp_path / "whole"))
    _, parts = gradients(trainer(tmp_path / "parts", micro_batch=8))
    flat, truth = (torch.cat([g.flatten() for g in grads.values()]) for grads in (parts, whole))
    assert (flat - truth).norm() <= 0.005 * truth.norm()


@pytest.fixture(scope="module")
def too_large(tmp_path_factory):
    """The smallest loss scale, beginning with START, from which the first two steps overflow here.

    How float16 products are added up, and so where they overflow, differs between processors and torches.
    """
    value, skipped = loss_scale.START / 2, 0
    while skipped < 2:
        value *= 2
        assert value <= loss_scale.HIGHEST
        run = trainer(tmp_path_factory.mktemp("search"))
        run.loss_scale.value = value
        run.train_until(2 * BATCH)
        skipped = run.loss_scale.skipped
    return value


@pytest.fixture
def overflowing(too_large):
    """overflowing(outdir): a run whose first steps overflow, unless a state in outdir says otherwise."""

    def make(outdir, stop_after=0):
        run = trainer(outdir, stop_after=stop_after, ema="power", ema_stds=(0.1,))
        if run.images_seen == 0:
            run.loss_scale.value = too_large
        return run

    return make


def test_a_step_that_overflows_is_skipped(tmp_path, overflowing, too_large):
    run = overflowing(tmp_path)
    before = {name: p.clone() for name, p in run.optimizer.params.items()}
    run.train_until(BATCH)
    assert run.images_seen == BATCH  # the clock goes on
    assert run.optimizer.num_steps == 0
    assert (run.loss_scale.value, run.loss_scale.skipped) == (too_large / 2, 1)
    assert all(torch.equal(before[name], p) for name, p in run.optimizer.params.items())
    assert all(p.grad is None for p in run.optimizer.params.values())
    run.train_until(7 * BATCH)
    logged = lines(tmp_path)
    skipped = logged[-1]["skipped"]
    assert [line["images_seen"] for line in logged] == list(range(BATCH, 8 * BATCH, BATCH))
    assert 1 < skipped < 6 and run.optimizer.num_steps == 7 - skipped
    assert logged[-1]["loss_scale"] == too_large / 2**skipped
    assert not all(torch.equal(before[name], p) for name, p in run.optimizer.params.items())


@pytest.mark.parametrize("stop_after", [1, 5])
def test_resumed_among_skipped_steps_with_the_same_bits(tmp_path, overflowing, stop_after):
    run = overflowing(tmp_path / "whole")
    run.train_until(7 * BATCH)
    with pytest.raises(Interrupted):
        overflowing(tmp_path / "stopped", stop_after).train_until(7 * BATCH)
    resumed = overflowing(tmp_path / "stopped")
    assert resumed.images_seen == stop_after * BATCH
    resumed.train_until(7 * BATCH)
    assert resumed.loss_scale.state() == run.loss_scale.state()
    expected, found = (tiny.all_tensors(trainer) for trainer in (run, resumed))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_the_averages_go_on_while_steps_are_skipped(tmp_path, overflowing):
    """A skipped step's weights count as long as any: the profile is one of images, not of updates."""
    run = overflowing(tmp_path)
    average = run.ema.weights()["0.100"]["unet.out_conv.weight"]
    run.train_until(BATCH)
    average.zero_()
    run.train_until(2 * BATCH)
    weight, (decay,) = run.optimizer.params["unet.out_conv.weight"], run.ema.decays(2 * BATCH, BATCH)
    assert run.loss_scale.skipped == 2
    torch.testing.assert_close(average, (1 - decay) * weight.detach())


def test_gradients_that_no_scale_mends_stop_the_run(tmp_path, monkeypatch):
    run = trainer(tmp_path, precision="fp32")
    backward = run.placement.weights.backward

    def spoiled(*args, **kwargs):
        backward(*args, **kwargs)
        run.net.unet.out_conv.weight.grad[0] = float("nan")

    monkeypatch.setattr(run.placement.weights, "backward", spoiled)
    before = run.net.unet.out_conv.weight.clone()
    with pytest.raises(
        RunError, match=r"at step 1, 12 images.*the gradient of unet.out_conv.weight is not finite"
    ):
        run.train_until(BATCH)
    assert torch.equal(before, run.net.unet.out_conv.weight)
    run = trainer(tmp_path, precision="fp16")
    backward = run.placement.weights.backward
    monkeypatch.setattr(run.placement.weights, "backward", spoiled)
    with pytest.raises(
        RunError, match=r"at step 19, 228 images.* loss scale 0\.000976562 .*out_conv.weight is not finite"
    ):
        run.train_until(100 * BATCH)


def test_the_scale_doubles_after_a_run_of_good_steps(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    scale = LossScale(torch.float16)
    for finite in [True] * 3 + [False, True, True]:
        scale.observe(finite)
    assert scale.value == loss_scale.START  # doubled, halved, and two good steps are not three
    scale.observe(True)
    assert (scale.value, scale.skipped) == (2 * loss_scale.START, 1)
    again = LossScale(torch.float16)
    again.load(json.loads(json.dumps(scale.state())))
    assert again.state() == scale.state()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_have_none(dtype):
    scale = LossScale(dtype)
    for _ in range(2 * loss_scale.GROWTH_STEPS):
        scale.observe(True)
    assert scale.value == 1 and scale.at_lowest and scale.line() == {}
