"""Samples as PNG files."""

from __future__ import annotations

import math

import torch

from mclr_fast.config import SampleConfig
from mclr_fast.data.image_files import add_labels, write_png
from mclr_fast.models import Model, load, read_config
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
        model = Model.of(read_config(config.model))
        net = load(config.model, dtype=choose_dtype("auto", ranks.device)).to(ranks.device)
        facts = model.facts
        seeds = parse_integers(config.seeds)
        classes = parse_integers(config.labels) if config.labels else range(max(facts.num_classes, 1))
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    if max(classes) >= max(facts.num_classes, 1):
        raise RunError(f"--labels {config.labels}: the model knows 0 to {facts.num_classes - 1}.")
    codec = model.codec()
    if not codec.makes_images:
        raise RunError(f"{config.model} makes latents of {codec.shape[0]} channels, not images.")
    labels = {seed: classes[i % len(classes)] for i, seed in enumerate(seeds)}  # a seed once: one file
    seeds = list(labels)
    batches = generate(
        model.sampler(net, config, guidance=config.guidance),
        seeds,
        torch.tensor(list(labels.values())),
        batch_size=config.sample_batch,
        ranks=ranks,
        stop=stop,
    )
    for batch in batches:  # every rank writes its own
        for place, image in zip(batch.places, codec.decode(batch.x).cpu(), strict=True):
            write_png(config.outdir / file_name(seeds[place]), image)
    ranks.wait()
    named = {file_name(seed): label for seed, label in labels.items()}
    ranks.on_main(add_labels, config.outdir / "dataset.json", named)
    return len(seeds)


def file_name(seed: int) -> str:
    """Of a seed's image."""
    return f"{seed:06d}.png"
