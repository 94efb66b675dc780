"""A model's own samples as a data set: made once, written whole, read like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mclr_fast.data import Codec, Dataset, open_dataset
from mclr_fast.data.image_files import ZipWriter
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.sampling import Sampler
from mclr_fast.sampling.generate import generate


def write_samples(
    path: Path,
    sampler: Sampler,
    num_samples: int,
    first_seed: int,
    like: Dataset,
    codec: Codec,
    batch_size: int,
    ranks: Ranks,
    stop: StopRequest,
) -> None:
    """Sample and write an EDM2 zip at `path`, in the format of the data set `like`.

    Sample i has seed first_seed + i and the i-th class of `like` in turn. Latents are written
    as posteriors without spread, so that reading them gives the sample. Rank 0 writes them as they are made:
    it holds one batch of every rank.
    """
    classes = torch.from_numpy(np.unique(like.labels))
    labels = classes[torch.arange(num_samples) % len(classes)]
    batches = generate(
        sampler,
        range(first_seed, first_seed + num_samples),
        labels,
        batch_size=batch_size,
        ranks=ranks,
        stop=stop,
        description=path.stem,
    )
    with ZipWriter(path) as archive:
        for batch in batches:
            images = ranks.gather_on_main(codec.stored(batch.x).cpu().numpy())
            ranks.on_main(archive.add, *images)
        ranks.on_main(archive.finish, labels.tolist())


def open_samples(path: Path | str, option: str, like: Dataset, num_classes: int) -> Dataset:
    """The data set at `path`, fit to be drawn from by class beside the data `like`.

    Errors    RunError naming `option`: not readable, images of another shape, unknown or missing classes.
    """
    try:
        samples = open_dataset(str(path))
        labels = samples.labels
    except (ValueError, OSError) as error:
        raise RunError(f"{option}: {error}.") from error
    if samples.image_shape != like.image_shape:
        seen, wanted = ("x".join(map(str, s.image_shape)) for s in (samples, like))
        raise RunError(f"{option} {path} holds images of {seen}, the data {wanted}: make them like the data.")
    if labels.max() >= num_classes:
        raise RunError(
            f"{option} {path} has labels up to {labels.max()}; the network knows classes 0 to "
            f"{num_classes - 1}."
        )
    missing = sorted(set(like.labels.tolist()) - set(labels.tolist()))
    if missing:
        raise RunError(
            f"{option} {path} has no sample of {len(missing)} of the data's {like.num_classes} classes "
            f"(first: class {missing[0]}): every image needs one of its own class."
        )
    return samples
