"""Samples as PNG files."""

from __future__ import annotations

import math

import torch

from mclr_fast.config import SampleConfig
from mclr_fast.data.image_files import add_labels, write_png
from mclr_fast.models import load
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import Check
from mclr_fast.runtime.precision import choose_dtype
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest
from mclr_fast.sampling.generate import generate

from .ranges import check_sampler


def parse_integers(text: str) -> list[int]:
    """The integers of a list like "1,2,5-10". ValueError for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        digits = first.isdecimal() and (last or first).isdecimal()
        if not digits or int(last or first) < int(first):
            raise ValueError(f"{text!r} is no list of integers like 0-15 or 1,2,5-10.")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def sample_files(config: SampleConfig, ranks: Ranks, stop: StopRequest) -> int:
    """Sample every seed and write outdir/<seed, six digits>.png -> how many. RunError for mistakes.

    Their classes go into outdir/dataset.json: the folder is an EDM2 data set, also after several calls.
    """
    check_sampler(config)
    Check(config)(math.isfinite, "finite", "guidance")
    try:
        net = load(config.model, dtype=choose_dtype("auto", ranks.device)).to(ranks.device)
        seeds = parse_integers(config.seeds)
        classes = parse_integers(config.labels) if config.labels else range(max(net.label_dim, 1))
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    if max(classes) >= max(net.label_dim, 1):
        raise RunError(f"--labels {config.labels}: the model knows 0 to {net.label_dim - 1}.")
    if net.img_channels not in (1, 3):
        raise RunError(f"{config.model} makes latents of {net.img_channels} channels, not images.")
    labels = torch.tensor([classes[i % len(classes)] for i in range(len(seeds))])
    shape = (net.img_channels, net.img_resolution, net.img_resolution)
    images = generate(net, seeds, labels, shape, config, ranks, stop, guidance=config.guidance)

    def write() -> None:
        names = [f"{seed:06d}.png" for seed in seeds]
        for name, image in zip(names, images, strict=True):
            write_png(config.outdir / name, image)
        add_labels(config.outdir / "dataset.json", dict(zip(names, labels.tolist(), strict=True)))

    ranks.on_main(write)
    return len(seeds)
