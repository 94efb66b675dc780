"""Micro-batches as graphs: losses and weights of the eager steps to the bit. On the CPU a tape captures."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from recording import FromTheHost, Late, Launches, NumbersSet, Recording
from run_log import column

from mclr_fast.config import ObjectiveConfig
from mclr_fast.methods import minibatch
from mclr_fast.methods.registry import METHODS, make_method
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training import trainer as trainer_module
from mclr_fast.training.memory import StepMemory
from mclr_fast.training.placement import capture_words

STEPS = 4


@pytest.fixture
def recording(monkeypatch):
    """The device that captures, in place of a GPU."""
    device = Recording()
    monkeypatch.setattr(trainer_module, "capturer", lambda _: device)
    return device


def train(tiny, folder, config, device="cpu", steps=STEPS):
    folder.mkdir(exist_ok=True)
    trainer = tiny.tiny_trainer(folder, config, tiny.StopAfter(0), ranks=Ranks(device))
    trainer.train_until(steps * tiny.BATCH)
    return trainer


def assert_equal_runs(tiny, tmp_path, config, device="cpu"):
    """A run without graphs and one with them."""
    off = replace(config, eval=replace(config.eval, cuda_graphs="off"))
    eager = train(tiny, tmp_path / "off", off, device)
    captured = train(tiny, tmp_path / "on", config, device)
    for name in ("loss", "positive"):
        expected, found = (column(tmp_path / folder, name).tolist() for folder in ("off", "on"))
        assert found == expected and len(found) == STEPS
    expected, found = tiny.all_tensors(eager), tiny.all_tensors(captured)
    different = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    assert not different
    return captured


@pytest.mark.parametrize(
    ("objective", "micro_batch"),
    [
        *((name, 20) for name in METHODS),
        *((name, size) for name in ("mclr", "ccdpo", "ddo") for size in (0, 3)),
    ],
)
def test_a_run_in_graphs_is_the_eager_run(tiny, tmp_path, recording, objective, micro_batch):
    """For every objective in parts with an odd last one; for three in whole steps and rows cut by columns."""
    separable = make_method(ObjectiveConfig(objective=objective)).separable
    micro_batch = micro_batch if separable or not micro_batch else max(micro_batch, 4)
    assert_equal_runs(tiny, tmp_path, tiny.tiny_config(objective, micro_batch))
    assert 2 <= recording.captured <= 4  # the weights, and of each shape one
    assert recording.replays >= (STEPS - 1) * 2


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"dropout": 0.3}])
def test_loss_scales_and_masks_change_between_replays(tiny, tmp_path, recording, options):
    assert_equal_runs(tiny, tmp_path, tiny.tiny_config("mclr", 20, **options))
    assert recording.captured == 3


@pytest.mark.parametrize("micro_batch", [0, 20])
def test_graphs_are_given_rows_that_have_arrived(tiny, tmp_path, recording, monkeypatch, micro_batch):
    """Brought beside the training, ahead of it: the static inputs are filled after the wait."""
    expected = train(tiny, tmp_path / "host", tiny.tiny_config("mclr", micro_batch))
    monkeypatch.setattr(minibatch, "staging", lambda device: Late())
    found = train(tiny, tmp_path / "late", tiny.tiny_config("mclr", micro_batch))
    losses = [column(tmp_path / folder, "loss").tolist() for folder in ("host", "late")]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    expected, found = tiny.all_tensors(expected), tiny.all_tensors(found)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_other_needs_are_captured_anew(tiny, tmp_path, recording):
    """A new reference has other weights, at another place."""
    config = tiny.tiny_config("ccdpo")
    trainer = train(tiny, tmp_path, config)
    before = recording.captured
    trainer.use(tiny.tiny_needs(config.objective))
    trainer.train_until((STEPS + 2) * tiny.BATCH)
    assert recording.captured == 2 * before


def test_where_memory_is_tight_graphs_make_room_for_sampling(tiny, tmp_path, recording):
    trainer = train(tiny, tmp_path, tiny.tiny_config())
    recording.free = 0.4
    for steps in (STEPS + 2, STEPS + 4):  # after each, graphs are let go
        trainer.train_until(steps * tiny.BATCH)
    assert recording.captured == 4


@pytest.mark.parametrize("number", [1, 2])
def test_what_cannot_be_captured_runs_eagerly_and_is_said(tiny, tmp_path, recording, capsys, number):
    recording.fail = number
    assert_equal_runs(tiny, tmp_path, tiny.tiny_config("mclr", 20))
    assert recording.captured == number
    assert capsys.readouterr().out.count("without a CUDA graph, kernel by kernel: operation not") == 1


@pytest.mark.parametrize("objective", METHODS)
def test_a_micro_batch_neither_waits_for_the_host_nor_copies_from_it(tiny, objective):
    """On the meta device, which has no values: the second pass's operations are the first's."""
    step = StepMemory(tiny.tiny_config(objective, dropout=0.1), tiny.MODEL)
    step.micro_batch(4, step.num_columns, False, FromTheHost())  # constants are made once
    first, second = FromTheHost(), FromTheHost()
    for each in (first, second):
        with NumbersSet():
            step.micro_batch(4, step.num_columns, False, each)
    assert first.calls == second.calls and len(first.calls) > 50


@pytest.mark.parametrize("micro_batch", [0, 20])
def test_few_launches_lie_between_graphs(tiny, tmp_path, recording, fused_ops, micro_batch):
    trainer = train(tiny, tmp_path, tiny.tiny_config("mclr", micro_batch))
    with Launches() as counted:
        trainer.train_until((STEPS + 1) * tiny.BATCH)
    assert 5 < len(counted.calls) <= 40, counted.calls


@pytest.mark.parametrize(
    ("device", "size", "cuda_graphs", "words"),
    [
        ("cpu", 1, "on", ""),
        ("cuda", 1, "on", ", micro-batches as CUDA graphs"),
        ("cuda", 2, "on", ", kernel by kernel (FSDP2)"),
        ("cuda", 2, "off", ", kernel by kernel (--cuda-graphs off)"),
    ],
)
def test_a_runs_first_line_says_how_micro_batches_run(tiny, device, size, cuda_graphs, words):
    ranks = SimpleNamespace(device=torch.device(device), size=size)
    assert capture_words(tiny.tiny_net(), ranks, "shard", cuda_graphs) == words


@pytest.mark.gpu
@pytest.mark.parametrize("objective", METHODS)
@pytest.mark.parametrize(("precision", "micro_batch"), [("fp32", 0), ("bf16", 20), ("fp16", 20), ("bf16", 3)])
def test_on_a_gpu_too(tiny, tmp_path, monkeypatch, capsys, objective, precision, micro_batch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    if not make_method(ObjectiveConfig(objective=objective)).separable:
        micro_batch = micro_batch and 20
    config = tiny.tiny_config(objective, micro_batch, precision=precision)
    captured = assert_equal_runs(tiny, tmp_path, config, "cuda")
    assert 2 <= len(captured.placement.graphs._graphs) <= 4
    assert "without a CUDA graph" not in capsys.readouterr().out
