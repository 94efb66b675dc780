"""A family of models that only tests know, with exact likelihoods and no noise, and runs of it as a program.

p(x|c) has independent pixels: a black and white image of class c is as likely as its pixels are under the
class's own probabilities. Usage: toy_family.py OUTDIR OBJECTIVE...; a run each in OUTDIR/OBJECTIVE.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.experiments.run import Run
from mclr_fast.models import Facts, Family, register
from mclr_fast.models.codecs import PixelCodec
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

BATCH, STEPS = 20, 6
NET = {"shape": [1, 16, 16], "num_classes": 10}


class Pixels(nn.Module):
    """Logits of every class's pixels; the last row is that of no class."""

    def __init__(self, shape, num_classes):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(num_classes + 1, *shape))

    def forward(self, x, labels):
        """-log p(x|c), x in [-1, 1] [n,...] or [n,w,...] and labels [n,w] -> [n,w]."""
        logits = self.logits[labels]
        target = ((x + 1) / 2).reshape(len(x), -1, *logits.shape[2:]).expand_as(logits)
        return binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(2).sum(2)


@dataclass
class PixelSampler:
    """Draws every pixel by its probability. See `mclr_fast.sampling.Sampler`."""

    net: Pixels
    guidance: float
    nfe: int = 1
    unguided: float = 1.0

    def held(self):
        return contextlib.nullcontext()

    def start(self, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.stack([torch.rand(self.net.logits.shape[1:], generator=g) for g in generators])

    def __call__(self, start, labels):
        unguided, logits = self.net.logits[-1], self.net.logits[labels]
        probability = (unguided + self.guidance * (logits - unguided)).sigmoid()
        return (start < probability).float() * 2 - 1


class Toy(Family):
    """All that the package needs to know of it."""

    image_arguments = ("shape", "num_classes")

    def build(self, arguments, *, dtype, dropout=0.0):
        return Pixels(**arguments)

    def facts(self, arguments):
        return Facts(tuple(arguments["shape"]), arguments["num_classes"])

    def codec(self, arguments, dataset=None):
        return PixelCodec(arguments["shape"] if dataset is None else dataset.image_shape)

    def inputs(self, net, rows):
        return rows.x

    def energies(self, net, inputs, labels_NR):
        return net(inputs, labels_NR)

    def sampler(self, net, facts, options, *, guidance=None, guide=None):
        return PixelSampler(net, 1.0 if guidance is None else guidance)


register("toy", Toy)


def run_config(outdir, objective="mclr", init=None, **train):
    """A run on the embedded digits; without init it trains a base."""
    return RunConfig(
        recipe="toy",
        outdir=Path(outdir),
        data="mnist16",
        family="toy",
        net=NET,
        init=init and str(init),
        protocol="mnist16",
        objective=ObjectiveConfig(objective=objective, num_negatives=3),
        train=TrainConfig(**{"duration": STEPS * BATCH, "batch_size": BATCH, "lr": 0.05, **train}),
        eval=EvalConfig(
            eval_every=3 * BATCH, num_samples=40, sample_batch=12, control="last", cfg_scales=(1.5,)
        ),
    )


def main(outdir, *objectives):
    ranks, stop = Ranks("cpu"), StopRequest()
    for objective in objectives:
        config = run_config(Path(outdir) / objective, objective, Path(outdir) / "base", micro_batch=12)
        Run(config, ranks, stop).execute()
        ranks.wait()
    ranks.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
