"""Short trainings of a net that shards unevenly, as a program for any number of ranks.

Usage: sharded_run.py OUTDIR; writes OUTDIR/CASE/: log.jsonl, gradients, average, weights, and what was sent.
What one rank has begun in OUTDIR/begun/, of the case "mclr", it goes on with.
"""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny_run as tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mclr_fast.data import SampleOrder
from mclr_fast.experiments.identity.claim import run_hash
from mclr_fast.methods.registry import Needs, make_method
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks, local
from mclr_fast.runtime.tensor_files import save_tensors
from mclr_fast.training.memory import StepMemory
from mclr_fast.training.trainer import Trainer

# On 2 ranks out_conv's 3 rows are 2 and 1; gains and logvar_linear have one row, so rank 1 has none of them.
NET = tiny.NET | {"img_channels": 3}
WIDE = NET | {"model_channels": 32, "channels_per_head": 32}
STEPS = 3
CASES = {  # objective, images a step, evaluations a micro-batch, optimizer
    "mclr": ("mclr", 13, 8, "adam-norm-ema"),  # rows 6 and 7 on 2 ranks: 3 and 4 micro-batches
    "one-image-a-rank": ("mclr", 2, 0, "adam-norm-ema"),  # so its negatives are another rank's labels
    "torch-adam": ("mclr", 12, 3, "torch-adam"),  # rows cut by columns
    "ccdpo": ("ccdpo", 13, 8, "adam-norm-ema"),
    "gft": ("gft", 12, 5, "adam-norm-ema"),  # a forward without gradients first
    "denoising": ("denoising", 13, 4, "adam-norm-ema"),  # trains logvar_linear
}


class ColorData(tiny.TinyData):
    """In the order of training, its labels go round the classes: no two neighbours share one."""

    image_shape = (3, 8, 8)

    def __init__(self, order):
        super().__init__()
        self._images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
        self.labels[order.indices(np.arange(40))] = np.arange(40) % 4


def color_net(seed):
    torch.manual_seed(seed)
    net = Precond(**NET)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(1.0)
    return net


def make_trainer(case, outdir, ranks, micro_batch=None, stop_after=0, sharding="shard"):
    objective, batch_size, parts, optimizer = CASES[case]
    parts = parts if micro_batch is None else micro_batch
    config = tiny.tiny_config(objective, parts, sharding=sharding, optimizer=optimizer, ema="power")
    config = replace(config, train=replace(config.train, batch_size=batch_size, duration=STEPS * batch_size))
    log = RunLog(outdir / "log.jsonl" if ranks.is_main else None)
    data = ColorData(SampleOrder(40, config.seed))
    stop = tiny.StopAfter(stop_after)
    net = color_net(0)
    model, run = Model.of(describe(NET)), run_hash(config)
    trainer = Trainer("tiny", config, model, net, data, ranks, log, outdir / "states", run, stop)
    needs_reference = make_method(config.objective).needs_reference
    trainer.use(Needs(model.family.frozen(color_net(1)) if needs_reference else None))
    return trainer


def gradients(trainer):
    """Those of the first step, whole."""
    trainer.step(trainer.images_seen)
    params = trainer.optimizer.params
    found = trainer.placement.full({name: p.grad for name, p in params.items()})
    for parameter in params.values():
        parameter.grad = None
    return {name: grad.clone() for name, grad in found.items()}


def run(case, outdir, ranks, **options):
    """Train, stopped by a signal in step 2 and resumed."""
    if ranks.is_main:
        outdir.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    trainer = make_trainer(case, outdir, ranks, stop_after=3, **options)
    grads = gradients(trainer)
    duration = trainer.config.duration
    try:
        trainer.train_until(duration)
    except Interrupted:
        trainer = make_trainer(case, outdir, ranks, **options)
        assert 0 < trainer.images_seen < duration
        trainer.train_until(duration)
    trainer.save()
    trainer.states.wait()
    groups = {"gradients": grads, "average": trainer.average_state()}
    ranks.on_main(save_tensors, outdir / "results.safetensors", groups)
    return trainer


def sent(case, outdir, ranks, micro_batch):
    """Collectives of one step's gradients, by name."""
    trainer = make_trainer(case, outdir / "unused", ranks, micro_batch)
    trainer.step(trainer.images_seen)  # the first pass also sets up
    with Collectives() as mode:
        trainer.step(trainer.images_seen)
    return dict(mode.counts)


class Collectives(TorchDispatchMode):
    """Counts them by name. torch's CommDebugMode cannot follow a network twice before torch 2.14."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace in ("c10d", "_c10d_functional"):
            self.counts[str(function._overloadpacket)] += 1
        return function(*args, **(kwargs or {}))


def memory(outdir, ranks, micro_batch):
    """Bytes that a step takes beside what lasts, as it is and as it is counted."""
    config = tiny.tiny_config("mclr", micro_batch, sharding="shard", precision="fp32")
    data = ColorData(SampleOrder(40, config.seed))
    log, stop = RunLog(None), tiny.StopAfter(0)
    model, net = Model.of(describe(WIDE)), Precond(**WIDE)
    trainer = Trainer("tiny", config, model, net, data, ranks, log, outdir / "unused", "", stop)
    counted = StepMemory(config, model).of(ranks.size, micro_batch)
    trainer.train_until(tiny.BATCH)
    measured = tiny.allocated(lambda: trainer.train_until(2 * tiny.BATCH))
    lasting = counted.parameters + counted.moments + counted.averages
    return {"measured": measured, "counted": counted.total - lasting}


def main(outdir):
    outdir, ranks = Path(outdir), Ranks("cpu")
    for case in CASES:
        trainer = run(case, outdir / case, ranks)
        shapes = {name: list(local(p).shape) for name, p in trainer.net.named_parameters()}
        held = sum(local(p).numel() for p in trainer.net.parameters())
        write_json(outdir / case / f"rank{ranks.rank}.json", {"shapes": shapes, "parameters": held})
        ranks.wait()
    begun = make_trainer("mclr", outdir / "begun", ranks)
    assert begun.images_seen > 0
    begun.train_until(begun.config.duration)
    counts = {size: sent("mclr", outdir, ranks, size) for size in (0, 4)}
    ranks.on_main((outdir / "sent.json").write_text, json.dumps(counts))
    sizes = {size: memory(outdir, ranks, size) for size in (0, 8)}
    write_json(outdir / f"memory{ranks.rank}.json", sizes)
    ranks.wait()
    ranks.close()


def leave():
    """End this process without ending its interpreter.

    FSDP2 keeps the process groups, so that gloo's threads live on; one that lets go of a tensor while the
    interpreter ends aborts the process, now and then (pytorch#179291).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
    leave()
