"""A tiny training run as a program, so that tests can start it with any number of ranks.

Usage: tiny_run.py OUTDIR OBJECTIVE[,OBJECTIVE...] MICRO_BATCH STEPS [STOP_AFTER]; the losses are in
OUTDIR/OBJECTIVE/log.jsonl.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from mclr_fast.config import ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.data.samples import ClassSamples
from mclr_fast.experiments.identity.claim import run_hash
from mclr_fast.methods.columns import SampleSources
from mclr_fast.methods.registry import Needs, make_method
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.training.trainer import Trainer

BATCH = 12
NET = dict(
    img_resolution=8, img_channels=1, label_dim=4, model_channels=8, channel_mult=[1, 2], num_blocks=1,
    attn_resolutions=[4], channels_per_head=8, logvar_channels=8,
)  # fmt: skip
MODEL = Model.of(describe(NET))
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TinyData:
    """40 random 8x8 images of 4 classes."""

    num_classes = 4
    image_shape = (1, 8, 8)

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(40) % 4
        self._images = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return self._images[indices]


def tiny_net(seed=0, dtype=torch.float32):
    """A net whose output depends on its label from the start."""
    torch.manual_seed(seed)
    net = Precond(**NET, dtype=dtype)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(1.0)
    return net


def tiny_needs(objective, dtype=torch.float32, device="cpu"):
    """Another net as the reference, other images as samples, weights that vary with image and label."""
    method = make_method(objective)
    samples = SampleSources(minus=ClassSamples(TinyData(1)))
    if method.chooses_positives:
        samples = SampleSources(ClassSamples(TinyData(2)), samples.minus)
    return Needs(
        MODEL.family.frozen(tiny_net(1, dtype).to(device)) if method.needs_reference else None,
        samples if method.uses_samples else SampleSources(),
        tiny_ratio if method.needs_ratio else None,
    )


def tiny_ratio(x_noisy, sigma, labels):
    """Weights in (0, 2): a stand-in for a classifier."""
    brightness = x_noisy.mean(dim=(-3, -2, -1)).view(len(labels), -1)
    return 2 * torch.sigmoid(brightness + sigma[:, None] - labels / 2)


def tiny_config(objective="mclr", micro_batch=0, steps=6, **train):
    return RunConfig(
        recipe="tiny",
        seed=3,
        objective=ObjectiveConfig(
            objective=objective, num_negatives=3, label_dropout=0.2, P_mean=0.0, P_std=0.5
        ),
        train=TrainConfig(
            duration=steps * BATCH, batch_size=BATCH, micro_batch=micro_batch, lr=1e-3, **train
        ),
    )


def tiny_trainer(outdir, config, stop, dataset=None, ranks=None):
    ranks = ranks or Ranks("cpu")
    log = RunLog(Path(outdir) / "log.jsonl" if ranks.is_main else None)
    path = Path(outdir) / "states"
    dtype = DTYPES.get(config.train.precision, torch.float32)
    net, data, run = tiny_net(dtype=dtype), dataset or TinyData(), run_hash(config)
    trainer = Trainer("tiny", config, MODEL, net, data, ranks, log, path, run, stop)
    trainer.use(tiny_needs(config.objective, dtype, ranks.device))
    return trainer


def all_tensors(trainer):
    """Everything a step changes, by name; copies."""
    groups = trainer.tensors().items()
    return {f"{group}/{name}": value.clone() for group, part in groups for name, value in part.items()}


class StopAfter(StopRequest):
    """A stop request that arrives by itself during the given step."""

    def __init__(self, steps):
        self.steps = steps
        self.looks = 0

    @property
    def requested(self):
        self.looks += 1
        return self.looks == self.steps


def train(outdir, objective, micro_batch, steps, stop_after, ranks=None):
    """Train into outdir; if stopped by a request on the way, start again and go on."""
    outdir.mkdir(parents=True, exist_ok=True)
    config = tiny_config(objective, micro_batch, steps)
    trainer = tiny_trainer(outdir, config, StopAfter(stop_after), ranks=ranks)
    try:
        trainer.train_until(config.train.duration)
    except Interrupted:
        trainer = tiny_trainer(outdir, config, StopAfter(0), ranks=ranks)  # started again
        trainer.train_until(config.train.duration)
    trainer.save()
    trainer.states.wait()


def allocated(step):
    """The most bytes that the CPU's allocator had given out during step(), beyond those before."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return int(max(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])))


def main(outdir, objectives, micro_batch, steps, stop_after="0"):
    ranks = Ranks("cpu")
    for objective in objectives.split(","):
        train(Path(outdir) / objective, objective, int(micro_batch), int(steps), int(stop_after), ranks)
        ranks.wait()
    ranks.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
