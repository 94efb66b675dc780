"""A tiny VAR trained on tokens, as a program, so that tests can start it with any number of ranks.

Usage: tiny_var.py OUTDIR SHARDING MICRO_BATCH OBJECTIVE...; OUTDIR/vqvae is its VQVAE, and the losses are in
OUTDIR/OBJECTIVE/log.jsonl.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny_run import StopAfter, tiny_config

from mclr_fast.methods.registry import Needs, make_method
from mclr_fast.models import Model, describe, save_model
from mclr_fast.models.var import VQVAE
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training.trainer import Trainer

SIDES = [1, 2, 3]
NET = dict(
    vocab_size=16, z_channels=4, num_classes=4, depth=2, embed_dim=32, num_heads=2, patch_nums=SIDES
)  # fmt: skip
STEPS = 4
TOKENS = 14


class TinyTokens:
    """40 images of 4 classes as random tokens."""

    num_classes = 4
    image_shape = (TOKENS,)

    def __init__(self, seed=0):
        self.labels = np.arange(40) % 4
        self._tokens = np.random.default_rng(seed).integers(0, 16, (40, TOKENS), dtype=np.int16)

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return self._tokens[indices]


def write_vqvae(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = dict(vocab_size=16, z_channels=4, ch=32, v_patch_nums=SIDES)
        save_model(folder, VQVAE(**sizes).state_dict(), describe(sizes, "vqvae"))


def tiny_model(outdir):
    return Model.of(describe(NET | {"vqvae": str(Path(outdir) / "vqvae")}, "var"))


def tiny_net(model, seed=0, dropout=0.0):
    """A net whose output depends on its label from the start."""
    torch.manual_seed(seed)
    net = model.build(dropout=dropout)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net


def tiny_trainer(outdir, objective, micro_batch=0, stop_after=0, sharding="auto", ranks=None, dropout=0.0):
    """The trainer of OUTDIR/OBJECTIVE; its reference is another net."""
    outdir, ranks = Path(outdir), ranks or Ranks("cpu")
    config = tiny_config(objective, micro_batch, STEPS, sharding=sharding, dropout=dropout)
    model, places = tiny_model(outdir), outdir / objective
    places.mkdir(parents=True, exist_ok=True)
    log = RunLog(places / "log.jsonl" if ranks.is_main else None)
    net = tiny_net(model, dropout=dropout)
    trainer = Trainer(
        "tiny",
        config,
        model,
        net,
        TinyTokens(),
        ranks,
        log,
        places / "states",
        "a run",
        StopAfter(stop_after),
    )
    needs_reference = make_method(config.objective).needs_reference
    reference = model.family.frozen(tiny_net(model, 1)) if needs_reference else None
    trainer.use(replace(Needs(), reference=reference))
    return trainer


def main(outdir, sharding, micro_batch, *objectives):
    ranks = Ranks("cpu")
    for objective in objectives:
        trainer = tiny_trainer(outdir, objective, int(micro_batch), sharding=sharding, ranks=ranks)
        trainer.train_until(trainer.config.duration)
        ranks.wait()
    ranks.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
