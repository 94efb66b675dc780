"""Sharded over 2 ranks or whole on one: the same gradients, losses, averages; and a resume across the two."""

import json
import shutil
from pathlib import Path

import pytest
import sharded_run as program
import torch
from run_log import assert_same_losses, column
from torch import nn

from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.tensor_files import load_tensors
from mclr_fast.training.placement import SHARDED_FROM, shards

PROGRAM = Path(program.__file__)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, on_two_ranks):
    """Every case on two ranks, sharded, in parts, stopped by a signal and resumed; and what one has begun."""
    outdir = tmp_path_factory.mktemp("sharded")
    (outdir / "begun").mkdir()
    with pytest.raises(Interrupted):
        program.make_trainer("mclr", outdir / "begun", Ranks("cpu"), stop_after=1).train_until(1000)
    on_two_ranks(PROGRAM, outdir)
    return outdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """whole(case): the folder of the same case on one rank, everything at once."""
    root, done = tmp_path_factory.mktemp("whole"), set()

    def get(case):
        if case not in done:
            program.run(case, root / case, Ranks("cpu"), micro_batch=0)
            done.add(case)
        return root / case

    return get


def close(actual, expected, tolerance):
    """Each tensor to `tolerance` of its largest element; gains, whose terms cancel, of the largest gain."""
    assert actual.keys() == expected.keys()
    gain = max(value.abs().max().item() for name, value in expected.items() if name.endswith("gain"))
    for name, value in expected.items():
        bound = tolerance * (gain if name.endswith("gain") else value.abs().max().item())
        torch.testing.assert_close(actual[name], value, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", program.CASES)
def test_gradients_and_losses_are_those_of_one_process(sharded, whole, case):
    expected, _ = load_tensors(whole(case) / "results.safetensors")
    actual, _ = load_tensors(sharded / case / "results.safetensors")
    assert all(grad.abs().max() > 0 for grad in expected["gradients"].values())
    close(actual["gradients"], expected["gradients"], 1e-5)
    assert len(column(sharded / case, "loss")) == program.STEPS
    assert_same_losses(sharded / case, whole(case))
    norms = column(whole(case), "gradient_norm")
    assert norms.min() > 0 and column(sharded / case, "gradient_norm") == pytest.approx(norms, rel=1e-4)
    close(actual["average"], expected["average"], 1e-3)  # Adam's first steps go by gradients' signs


def test_shards_are_uneven_and_empty(sharded):
    first, second = (
        json.loads((sharded / "denoising" / f"rank{rank}.json").read_text()) for rank in range(2)
    )
    shapes = first["shapes"], second["shapes"]
    assert [s["unet.out_conv.weight"][0] for s in shapes] == [2, 1]
    assert [s["unet.out_gain"] for s in shapes] == [[1], [0]]
    assert [s["logvar_linear.weight"][0] for s in shapes] == [1, 0]
    num_params = sum(p.numel() for p in program.color_net(0).parameters())
    assert first["parameters"] + second["parameters"] == num_params


def test_micro_batches_cost_no_communication(sharded):
    whole_step, in_parts = json.loads((sharded / "sent.json").read_text()).values()
    assert whole_step == in_parts
    assert whole_step["c10d._reduce_scatter_base_"] > 1


@pytest.mark.parametrize("rank", [0, 1])
def test_counted_memory_is_what_a_sharded_step_takes(sharded, fused_ops, rank):
    for size in json.loads((sharded / f"memory{rank}.json").read_text()).values():
        assert size["measured"] == pytest.approx(size["counted"], rel=0.05)


@pytest.mark.parametrize("case", ["mclr", "ccdpo"])
def test_one_process_goes_on_where_two_shards_stopped(sharded, whole, tmp_path, case):
    """What the two wrote in shards, one process reads: it has the state it would have reached alone."""
    shutil.copytree(sharded / case / "states", tmp_path / "states")
    trainer, alone = (program.make_trainer(case, f, Ranks("cpu")) for f in (tmp_path, whole(case)))
    assert trainer.images_seen == alone.images_seen == trainer.config.duration
    assert trainer.optimizer.num_steps == alone.optimizer.num_steps == program.STEPS
    for name, group in alone.tensors().items():
        actual, expected = (
            {k: v for k, v in g.items() if k != "num_steps"} for g in (trainer.tensors()[name], group)
        )
        close(actual, expected, 1e-3)


def test_two_shards_go_on_where_one_process_stopped(sharded, whole):
    assert len(column(sharded / "begun", "loss")) == program.STEPS
    assert_same_losses(sharded / "begun", whole("mclr"))


def test_a_large_net_on_several_ranks_is_sharded_unless_told_otherwise():
    with torch.device("meta"):
        small, large = nn.Linear(1000, 1000), nn.Linear(SHARDED_FROM // 1000, 1000)
    assert [shards(net, 8, "auto") for net in (small, large)] == [False, True]
    assert [shards(small, 8, asked) for asked in ("replicate", "shard")] == [False, True]
    assert not shards(large, 1, "shard")  # nothing to split
