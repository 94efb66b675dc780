"""float16 and a library's Adam on a net that shards unevenly, as a program for any number of ranks.

Usage: precision_run.py OUTDIR FIRST_SCALE; writes OUTDIR/CASE-SHARDING/: log.jsonl and results.safetensors.
FIRST_SCALE: the loss scale that float16 begins with.
"""

import sys
from dataclasses import replace
from pathlib import Path

import sharded_run as sharded
import torch

from mclr_fast.data import SampleOrder
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.tensor_files import save_tensors
from mclr_fast.training.trainer import Trainer

STEPS, BATCH, STDS = 5, 13, (0.05, 0.1, 0.2)
CASES = {  # what the network computes in, the optimizer
    "fp16": (torch.float16, "adam-norm-ema"),
    "torch-adam": (torch.float32, "torch-adam"),
}


def train(case, outdir, ranks, sharding, first_scale):
    if ranks.is_main:
        outdir.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    dtype, optimizer = CASES[case]
    config = sharded.tiny.tiny_config(
        "mclr", 8, STEPS, sharding=sharding, ema="power", ema_stds=STDS, optimizer=optimizer
    )
    config = replace(config, train=replace(config.train, batch_size=BATCH, duration=STEPS * BATCH))
    net = Precond(**sharded.NET, dtype=dtype)
    net.load_state_dict(sharded.color_net(0).state_dict())
    log = RunLog(outdir / "log.jsonl" if ranks.is_main else None)
    data = sharded.ColorData(SampleOrder(40, config.seed))
    model, stop = Model.of(describe(sharded.NET)), sharded.tiny.StopAfter(0)
    trainer = Trainer("tiny", config, model, net, data, ranks, log, outdir / "states", "", stop)
    grads = sharded.gradients(trainer)
    if trainer.loss_scale.moves:
        trainer.loss_scale.value = first_scale
    trainer.train_until(STEPS * BATCH)
    groups = {label: trainer.average_state(label) for label in trainer.ema.weights()} | {"gradients": grads}
    groups = {name: {k: v.clone() for k, v in group.items()} for name, group in groups.items()}
    ranks.on_main(save_tensors, outdir / "results.safetensors", groups)


def main(outdir, first_scale):
    ranks = Ranks("cpu")
    for case, sharding in (("fp16", "replicate"), ("fp16", "shard"), ("torch-adam", "shard")):
        train(case, Path(outdir) / f"{case}-{sharding}", ranks, sharding, float(first_scale))
        ranks.wait()
    ranks.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
    sharded.leave()
