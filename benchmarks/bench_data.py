"""Reading the data: images a second against a torch DataLoader, and how long training waits for them.

`data-png`: 64x64 PNG in EDM2's format, from a file in the page cache, with as many threads as the DataLoader
has workers. `data-wait`: the share of the loop's time spent waiting, while it trains on the CPU, and while it
idles as long as a GPU would take for 2,048 images at 5,000 images a second.
Run: pytest benchmarks/bench_data.py --benchmark-only
"""

import time

import numpy as np
import pytest
from baselines.torch_loader import torch_loader
from interleave import interleave, record_times
from png_zip import write_png_zip

from mclr_fast.config import ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.data import open_dataset
from mclr_fast.methods.columns import other_labels
from mclr_fast.methods.minibatch import MinibatchSource
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training.trainer import Trainer

NUM_WORKERS = 2
NUM_IMAGES = 8192
STEP = 2048  # images of a step, EDM2's batch
LOADER_BATCH = 256  # the DataLoader's: larger ones make it slower
ROUNDS = 7
GPU_IMAGES_PER_SECOND = 5000
NET = dict(
    img_resolution=64, img_channels=3, label_dim=10, model_channels=16, channel_mult=[1, 2], num_blocks=1
)


class NeverStop:
    requested = False


@pytest.fixture(scope="module")
def img64(tmp_path_factory, suite):
    path = tmp_path_factory.mktemp("data") / "img64.zip"
    write_png_zip(path, 256 if suite.quick else NUM_IMAGES)
    return path


@pytest.mark.parametrize("loader", ["dali", "plain"])
def test_png(benchmark, suite, img64, loader):
    if loader == "dali":
        pytest.importorskip("nvidia.dali", reason="needs NVIDIA DALI: pip install 'mclr_fast[dali]'")
    dataset = open_dataset(str(img64), loader=loader, num_threads=NUM_WORKERS)
    indices = np.random.default_rng(1).permutation(len(dataset))
    batches = torch_loader(img64, indices, LOADER_BATCH, NUM_WORKERS)

    def ours():
        for first in range(0, len(indices), STEP):
            dataset.images(indices[first : first + STEP])

    def torchs():
        assert sum(len(images) for images, _ in batches) == len(indices)

    benchmark.extra_info.update(row="data-png", case=loader, machine=suite.machine)
    times = interleave(benchmark, ours, {"torch": torchs}, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    rate = [len(indices) / seconds for seconds in times["ours"].seconds]
    suite.record(benchmark, {"over_torch": times["torch"].ratios(times["ours"]), "images_per_second": rate})


def test_wait_of_training(benchmark, suite, img64, tmp_path):
    batch_size = 8 if suite.quick else 32
    config = RunConfig(
        recipe="bench",
        objective=ObjectiveConfig(num_negatives=3),
        train=TrainConfig(duration=10**9, batch_size=batch_size),
    )
    dataset = open_dataset(str(img64), loader="auto", num_threads=NUM_WORKERS)
    net = Precond(**NET)
    path = tmp_path / "state.safetensors"
    model, ranks, log = Model.of(describe(NET)), Ranks("cpu"), RunLog(None)
    trainer = Trainer("bench", config, model, net, dataset, ranks, log, path, "", NeverStop())

    def ours():
        trainer.train_until(trainer.images_seen + 4 * batch_size)

    wait(benchmark, suite, "training on the CPU", ours, trainer.source)


def test_wait_of_a_gpu(benchmark, suite, img64):
    dataset = open_dataset(str(img64), loader="auto", num_threads=NUM_WORKERS)
    step = 64 if suite.quick else STEP
    objective = ObjectiveConfig(num_negatives=3)
    model = Model.of(describe(NET))
    codec, law = model.codec(dataset), model.law(objective)
    source = MinibatchSource(dataset, codec, law, objective, other_labels, 0.0, step, 0, Ranks("cpu"))
    seen = [0]

    def ours():
        for _ in range(4):
            source.draw(seen[0])
            seen[0] += step
            time.sleep(step / GPU_IMAGES_PER_SECOND)

    wait(benchmark, suite, f"{GPU_IMAGES_PER_SECOND:,} images/s", ours, source)


def wait(benchmark, suite, case, ours, source):
    """Record the share of each round, after one to warm up, that `source` was waited for."""
    waited = []

    def measured():
        before = source.waited
        ours()
        waited.append(source.waited - before)

    benchmark.extra_info.update(row="data-wait", case=case, machine=suite.machine)
    rounds = suite.rounds(ROUNDS)
    times = interleave(benchmark, measured, {}, rounds=rounds)
    if times is None:
        return
    record_times(benchmark, times)
    seconds = times["ours"].seconds
    suite.record(benchmark, {"wait_share": [w / s for w, s in zip(waited[-rounds:], seconds, strict=True)]})
