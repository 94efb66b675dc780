"""The counted memory of a step against what torch's allocator gives out in one, and what is made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mclr_fast.methods.registry import Needs
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import PRESETS, Precond
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training.memory import GIB, PeakBytes, StepMemory
from mclr_fast.training.trainer import Trainer

NET = dict(
    img_resolution=16, img_channels=3, label_dim=4, model_channels=32, channel_mult=[1, 2], num_blocks=1,
    attn_resolutions=[8], channels_per_head=32,
)  # fmt: skip


def described(net):
    return Model.of(describe(net))


def run_config(tiny, objective="mclr", micro_batch=0, batch_size=16, precision="fp32", **options):
    config = tiny.tiny_config(objective, micro_batch, precision=precision, **options)
    return replace(config, train=replace(config.train, batch_size=batch_size, duration=3 * batch_size))


def make_trainer(tiny, config, net, ranks, outdir):
    shape = (net["img_channels"], net["img_resolution"], net["img_resolution"])

    class Images(tiny.TinyData):
        image_shape = shape

        def images(self, indices):
            return np.zeros((len(indices), *shape), dtype=np.uint8)

    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    state, stop, model = outdir / "state", tiny.StopAfter(0), Model.of(describe(net))
    network, log = Precond(**net, dtype=dtype), RunLog(None)
    trainer = Trainer("tiny", config, model, network, Images(), ranks, log, state, "", stop)
    if trainer.method.needs_reference:
        trainer.use(Needs(model.family.frozen(Precond(**net, dtype=dtype).to(ranks.device))))
    return trainer


def test_the_fullest_rank_is_counted(tiny):
    step = StepMemory(run_config(tiny, batch_size=16), described(NET))
    assert [step.rows(num_gpus) for num_gpus in (1, 2, 3, 5, 16)] == [16, 8, 6, 4, 1]


def skip_where_convolutions_take_buffers(tiny, dtype):
    """Where oneDNN has no convolution of this dtype for the processor, torch unfolds the images first.

    No GPU does, and GPUs are what is counted.
    """
    x = torch.randn(16, 32, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(32, 32, 3, 3, dtype=dtype)
    taken = tiny.allocated(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
    if taken > 2 * x.nbytes:  # the result is as large as x
        pytest.skip(f"convolutions of {dtype} take buffers of their own on this processor")


@pytest.mark.parametrize(
    ("objective", "micro_batch", "precision"),
    [
        ("mclr", 0, "fp32"),
        ("mclr", 16, "bf16"),
        ("mclr", 3, "fp32"),
        ("ccdpo", 8, "fp32"),
        ("gft", 5, "fp32"),
    ],
)
def test_counted_is_what_a_step_takes(tiny, tmp_path, fused_ops, objective, micro_batch, precision):
    config = run_config(tiny, objective, micro_batch, precision=precision)
    counted = StepMemory(config, described(NET)).of(1, micro_batch)
    lasting = counted.parameters + counted.moments + counted.averages + counted.reference
    lasting += counted.gradients  # the sums, from the first step on
    trainer = make_trainer(tiny, config, NET, Ranks("cpu"), tmp_path)
    skip_where_convolutions_take_buffers(tiny, trainer.net.dtype)
    trainer.train_until(16)  # the first step also sets up
    measured = tiny.allocated(lambda: trainer.train_until(32))
    assert measured == pytest.approx(counted.total - lasting, rel=0.05)


@pytest.mark.gpu
def test_counted_is_what_a_step_takes_on_a_gpu(tiny, tmp_path):
    config = run_config(tiny, micro_batch=64, batch_size=48, precision="bf16")
    net = PRESETS["edm2-img64-s"].net
    torch.cuda.reset_peak_memory_stats()
    make_trainer(tiny, config, net, Ranks("cuda"), tmp_path).train_until(96)
    counted, measured = StepMemory(config, described(net)).of(1, 64).total, torch.cuda.max_memory_allocated()
    print(f"counted {counted / GIB:.2f} GiB, measured {measured / GIB:.2f} GiB")
    assert measured == pytest.approx(counted, rel=0.1)  # cuDNN's workspaces are not counted


def test_lasting_memory_is_that_of_the_tensors(tiny, tmp_path):
    config = run_config(tiny, "denoising", ema="power", ema_stds=(0.05, 0.1))
    trainer = make_trainer(tiny, config, NET, Ranks("cpu"), tmp_path)
    groups = trainer.tensors()
    sizes = {name: sum(t.nbytes for t in group.values()) for name, group in groups.items()}
    counted = StepMemory(config, described(NET)).of(1, 0)
    buffers, clock = sum(b.nbytes for b in trainer.net.buffers()), 8
    assert counted.parameters == sizes["net"] - buffers
    assert counted.moments == sizes["optimizer"] - clock
    assert counted.averages == sizes["ema"]


def test_shards_divide_what_lasts(tiny):
    step = StepMemory(run_config(tiny, sharding="shard"), described(NET))
    whole, parts = step.of(1, 4), step.of(4, 4)
    for name in ("parameters", "moments", "averages"):
        assert 1 / 4 <= getattr(parts, name) / getattr(whole, name) < 0.26  # shards are not all even


def test_the_largest_micro_batch_is_the_last_that_fits(tiny):
    step = StepMemory(run_config(tiny, batch_size=64), described(NET))
    columns = step.num_columns
    for rows in (1, 5, 20, 63):
        room = step.of(1, rows * columns).total
        assert step.largest(1, room) == rows * columns
        assert step.largest(1, room - 1) < rows * columns
    assert step.largest(1, step.of(1, 0).total) == 64 * columns
    assert step.largest(1, step.of(1, 2).total) == 2  # a row is cut
    assert step.largest(1, 1e6) == 0


def test_rows_that_stay_together_are_not_cut(tiny):
    step = StepMemory(run_config(tiny, "ccdpo"), described(NET))
    assert step.largest(1, step.of(1, 4).total) == 4
    assert step.largest(1, step.of(1, 4).total - 1) == 0


def test_peak_counts_what_is_alive():
    with PeakBytes() as count:
        a = torch.empty(100)
        b = a[:50]
        assert count.live == 400  # a view has no memory of its own
        c = b + 1
        del a, b
        d = torch.empty(10)
    assert (count.live, count.peak) == (240, 600)
    del c, d
    assert count.live == 0
