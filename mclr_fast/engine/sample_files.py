"""Samples as PNG files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mclr_fast.config import SampleConfig
from mclr_fast.models import load

from .checkpoint import replacing, write_json
from .distributed import Ranks
from .errors import RunError
from .generate import generate
from .ranges import Check, check_sampler
from .setup import choose_dtype
from .signals import StopRequest


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


def add_labels(path: Path, labels: dict[str, int]) -> None:
    """Write file names and classes as EDM2's dataset.json, beside those that it has."""
    try:
        known = dict(json.loads(path.read_text())["labels"]) if path.exists() else {}
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(f"{path} is malformed ({error!r}): choose another --outdir.") from error
    write_json(path, {"labels": [[name, label] for name, label in sorted((known | labels).items())]})


def write_png(path: Path, image: Tensor) -> None:
    """uint8 [C,H,W] -> PNG, atomically."""
    pixels = image.permute(1, 2, 0).numpy()
    with replacing(path) as temporary:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(temporary, "PNG")
