"""The loop's own promises: what it saves, what it refuses, what it leaves untouched."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run as tiny
import torch
from recording import FromTheHost
from run_log import assert_same_losses, column, lines

from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.process.ranks import Ranks

BATCH = tiny.BATCH


def trainer(outdir, dataset=None, stop_after=0, **config):
    return tiny.tiny_trainer(outdir, tiny.tiny_config(**config), tiny.StopAfter(stop_after), dataset)


def test_resumed_run_ends_with_the_same_bits(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    run = trainer(whole, ema="power", ema_stds=(0.05, 0.1))
    run.train_until(6 * BATCH)
    interrupted = trainer(stopped, stop_after=4, ema="power", ema_stds=(0.05, 0.1))
    with pytest.raises(Interrupted):
        interrupted.train_until(6 * BATCH)
    resumed = trainer(stopped, ema="power", ema_stds=(0.05, 0.1))
    assert resumed.images_seen == 4 * BATCH
    resumed.train_until(6 * BATCH)
    expected, got = (tiny.all_tensors(trainer) for trainer in (run, resumed))
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_weights_stay_normalised_and_logvar_frozen(tmp_path):
    run = trainer(tmp_path)
    before = run.net.logvar_linear.weight.clone()
    run.train_until(3 * BATCH)
    for name, weight in run.net.named_parameters():
        if weight.ndim > 1 and "logvar" not in name:
            rms = weight.flatten(1).square().mean(dim=1).sqrt()
            torch.testing.assert_close(rms, torch.full_like(rms, 1 - 1e-4), rtol=1e-4, atol=0)
    assert torch.equal(run.net.logvar_linear.weight, before)


def test_average_state_is_the_ema(tmp_path):
    run = trainer(tmp_path, ema_beta=0.5)
    run.train_until(2 * BATCH)
    state, live = run.average_state(), run.net.state_dict()
    assert state.keys() == live.keys()
    average = run.ema.weights()["plain"]
    assert torch.equal(state["unet.out_conv.weight"], average["unet.out_conv.weight"])
    assert not torch.equal(state["unet.out_conv.weight"], live["unet.out_conv.weight"])
    assert state["unet.out_gain"].shape == ()


class StoppedElsewhere(Ranks):
    """The sums of a run of two ranks, of which the other was asked to stop."""

    def sum(self, values):
        if values.ndim == 1 and len(values) > 2:  # not finite, stop, loss, energies
            values[1] += 1
        return values


def test_a_request_to_stop_on_any_rank_stops_all(tmp_path):
    run = tiny.tiny_trainer(tmp_path, tiny.tiny_config(), tiny.StopAfter(0), ranks=StoppedElsewhere("cpu"))
    with pytest.raises(Interrupted):
        run.train_until(2 * BATCH)
    assert run.images_seen == BATCH


def test_minibatch_of_one_class_is_one_clear_line(tmp_path):
    data = tiny.TinyData()
    data.labels = np.zeros(40, dtype=np.int64)
    with pytest.raises(RunError, match="1 distinct class in this minibatch of 12"):
        trainer(tmp_path, dataset=data).train_until(BATCH)


def test_the_learning_rate_is_of_the_images_before_the_step(tmp_path):
    run = trainer(tmp_path, warmup_images=4 * BATCH)
    run.train_until(6 * BATCH)
    assert column(tmp_path, "lr").tolist() == [0.0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3]


def test_log_is_rewound_on_resume(tmp_path):
    run = trainer(tmp_path)
    run.train_until(2 * BATCH)
    run.save()
    run.states.wait()
    run.train_until(4 * BATCH)  # logged, not saved: as when killed
    trainer(tmp_path).train_until(3 * BATCH)
    assert column(tmp_path, "images_seen").tolist() == [12, 24, 36]
    assert {"arm", "loss", "positive", "negative", "lr", "images_per_second"} <= lines(tmp_path)[0].keys()


@pytest.mark.parametrize(("every", "logged"), [(0, [1, 2, 3, 4, 5, 6]), (36, [1, 3, 6]), (1000, [1])])
def test_the_log_begins_at_the_first_step(tmp_path, every, logged):
    """A line of it, and then of every so many images."""
    trainer(tmp_path, log_every=every).train_until(6 * BATCH)
    assert (column(tmp_path, "images_seen") / BATCH).tolist() == logged


def test_the_logged_norm_is_of_all_gradients(tmp_path):
    """Of those that the step is about to apply; a step that is not logged measures none."""
    run, seen = trainer(tmp_path, log_every=2 * BATCH), []
    begin = run.step.begin

    def begun(*arguments, **options):
        wait = begin(*arguments, **options)
        grads = torch.cat([p.grad.flatten() for p in run.optimizer.params.values()])

        def result():
            seen.append((grads.double().norm().item(), wait()))
            return seen[-1][1]

        return result

    run.step.begin = begun
    run.train_until(3 * BATCH)
    assert [result.gradient_norm is None for _, result in seen] == [False, False, True]
    expected = [norm for norm, _ in seen[:2]]
    assert column(tmp_path, "gradient_norm") == pytest.approx(expected, rel=1e-6) and min(expected) > 0


def test_measuring_the_norm_changes_no_bit(tmp_path):
    """Runs that log every step and none but the first end alike."""
    ends = []
    for every in (0, 1000):
        (tmp_path / str(every)).mkdir()
        run = trainer(tmp_path / str(every), log_every=every)
        run.train_until(3 * BATCH)
        ends.append(tiny.all_tensors(run))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_norm_waits_for_no_device(tmp_path):
    """Not one more synchronisation a step: on the meta device a number that is read fails."""
    optimizer = trainer(tmp_path).optimizer
    optimizer.params = {name: torch.nn.Parameter(p.to("meta")) for name, p in optimizer.params.items()}
    for p in optimizer.params.values():
        p.grad = torch.empty_like(p)
    with FromTheHost():
        assert optimizer.squared_norm().device.type == "meta"


def test_waiting_for_data_is_told_a_step(tmp_path):
    """Milliseconds a step since the line before, of the seconds in all."""
    run = trainer(tmp_path, log_every=2 * BATCH)
    seen = []
    run.log.write = seen.append
    result = SimpleNamespace(loss=1.0, finite=True, gradient_norm=2.0)
    for images, waited in ((BATCH, 0.1), (3 * BATCH, 0.35)):
        run.source._next = SimpleNamespace(waited=waited)
        run.lines.write(images, result, {"positive": 1.0}, lr=0.1)
    assert [line["data_wait_ms"] for line in seen] == pytest.approx([100.0, 125.0])
    assert [line["data_seconds"] for line in seen] == pytest.approx([0.1, 0.35])


def test_dropout_masks_do_not_depend_on_the_micro_batch(tmp_path):
    for micro_batch in (0, 3):
        folder = tmp_path / str(micro_batch)
        folder.mkdir()
        run = trainer(folder, micro_batch=micro_batch, dropout=0.5, steps=2)
        for module in run.net.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.5
        run.train_until(2 * BATCH)
    assert_same_losses(tmp_path / "3", tmp_path / "0")


def test_form_2_pairs_images_under_the_rows_label(tmp_path):
    config = tiny.tiny_config()
    config = dataclasses.replace(
        config, objective=dataclasses.replace(config.objective, form=2, num_negatives=2)
    )
    run = tiny.tiny_trainer(tmp_path, config, tiny.StopAfter(0))
    batch = run.source.draw(0)
    assert batch.x.shape == (BATCH, 3, 1, 8, 8)
    assert (batch.labels == batch.labels[:, :1]).all()
    run.train_until(BATCH)
    assert run.images_seen == BATCH
