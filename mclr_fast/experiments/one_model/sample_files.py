"""Samples as files, and as an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mclr_fast.config import SampleConfig
from mclr_fast.data.image_files import write_sheet
from mclr_fast.data.sample_output import PngFiles, SampleArray, SampleFiles, SampleZip
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.locks import owned, refuse_if_owned
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.sampling import generate as sampling

from ..ready_model import (
    ReadyModel,
    classes_of,
    classes_of_seeds,
    drawn_classes,
    made_with,
    parse_integers,
    ready_model,
    say_instead,
)

ON_SHEET = 100  # images of a contact sheet


def sample_files(config: SampleConfig, ranks: Ranks, stop: StopRequest) -> int:
    """Sample every seed into --outdir -> how many images it has of them. RunError for mistakes.

    What is there is not made again.
    """
    try:
        seeds = list(dict.fromkeys(parse_integers(config.seeds)))  # a seed once: one file
    except ValueError as error:
        raise RunError(f"--seeds: {error}") from error
    _check_outdir(config)
    ranks.on_main(refuse_if_owned, _lock_of(config.outdir), config.outdir)
    ready = ready_model(config, ranks.device)
    say_instead(config, ready.model.sampler_defaults, "its own")
    labels = classes_of_seeds(ready.model, seeds, ranks, config.labels, config.balance)
    made = ranks.on_main(made_with, ready)
    with (
        owned(_lock_of(config.outdir), config.outdir, ranks),
        _files(config, seeds, labels, made, ranks) as files,
    ):
        _write(files, ready, ranks, stop)
        if config.grid:
            ranks.on_main(lambda: write_sheet(sheet_path(config.outdir), _first_images(files)))
    return len(seeds)


def _lock_of(outdir: Path) -> Path:
    """The file that says which process writes there now: in a folder, or beside a file."""
    if outdir.suffix in (".zip", ".npz"):
        return outdir.with_name(f".{outdir.name}.lock")
    return outdir / ".running.lock"


def sheet_path(outdir: Path) -> Path:
    """Where the contact sheet is."""
    stem = outdir.stem if outdir.suffix in (".zip", ".npz") else outdir.name
    return outdir.with_name(f"{stem}-grid.png")


def generate(
    model: str | Path | nn.Module,
    seeds: Iterable[int],
    labels: int | str | Sequence[int | str] | None = None,
    *,
    device: str | torch.device | None = None,
    **options: Any,
) -> Tensor:
    """Sample a model in this process -> uint8 images [n,C,H,W], on the CPU; a seed gives the door's image.

    Args: model: a path or name, or what `load` gave; labels: classes by number or name, used in turn; None:
        the model's way, drawn by seed or all in turn. device: default: the loaded model's, else cuda where
        there is one. options: those of `python -m mclr_fast.sample`: guidance, gnet, num_steps, ...
    Errors    RunError or ValueError, one line.
    """
    net = model if isinstance(model, nn.Module) else None
    if net is not None and not hasattr(net, "description"):
        raise ValueError("generate needs a model that mclr_fast.load gave, or its path.")
    if device is None:
        own = "cuda" if torch.cuda.is_available() else "cpu"
        device = own if net is None else next(net.parameters()).device
    seeds = list(seeds)
    chosen = [labels] if isinstance(labels, int | str) else [] if labels is None else list(labels)
    chosen = [label if isinstance(label, str) else int(label) for label in chosen]
    name = "the model" if net is not None else str(model)
    config = SampleConfig(model=name, labels=",".join(map(str, chosen)), **options)
    ready = ready_model(config, torch.device(device), net)
    classes = classes_of(ready.model, len(seeds), config.labels, config.balance)
    classes = torch.tensor(drawn_classes(ready.model, seeds) if classes is None else classes)
    images = []
    with torch.no_grad(), ready.sampler.held():
        for first in range(0, len(seeds), config.sample_batch):
            batch = slice(first, first + config.sample_batch)
            x = ready.sampler(ready.sampler.start(seeds[batch]), classes[batch].to(device))
            images.append(ready.decode(x).cpu())
    return torch.cat(images)


def _write(files: SampleFiles, ready: ReadyModel, ranks: Ranks, stop: StopRequest) -> None:
    places = files.begin()
    batches = sampling.generate(
        ready.sampler,
        [files.seeds[place] for place in places],
        torch.tensor([files.labels[place] for place in places]),
        batch_size=ready.options.sample_batch,
        ranks=ranks,
        stop=stop,
    )
    for batch in batches:
        images = ready.decode(batch.x).cpu().numpy()
        files.add([places[place] for place in batch.places], images)
    files.finish()


def _first_images(files: SampleFiles) -> np.ndarray:
    """Those of the contact sheet, some of which an earlier command may have made."""
    try:
        return files.read(ON_SHEET)
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise RunError(
            f"{files.path} holds an image that cannot be read ({error}): remove it, and run the same command "
            "again to have it made."
        ) from error


def _check_outdir(config: SampleConfig) -> None:
    is_file = config.outdir.suffix in (".zip", ".npz")
    if is_file and config.subdirs:
        raise RunError(f"--subdirs is for a folder of PNG files; --outdir {config.outdir} is a file.")
    if config.outdir.exists() and config.outdir.is_dir() == is_file:
        raise RunError(
            f"--outdir {config.outdir} is a {'folder' if is_file else 'file'} already: name another place."
        )


def _files(
    config: SampleConfig, seeds: list[int], labels: list[int], made: dict[str, Any], ranks: Ranks
) -> SampleFiles:
    what = (config.outdir, seeds, labels, made, ranks)
    if config.outdir.suffix == ".zip":
        return SampleZip(*what)
    if config.outdir.suffix == ".npz":
        return SampleArray(*what)
    return PngFiles(*what, subdirs=config.subdirs)
