"""Samples of the same few initial noises, under each of some classes: the rows of a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.sampling.generate import generate
from mclr_fast.sampling.sampler import Sampler

GRID_CLASSES = 10  # of the grid, where a model knows more


def classes_of_grid(classes: Sequence[int]) -> list[int]:
    """All of these classes, or of many some, evenly spread; of none one column."""
    classes = classes or [0]
    shown = min(len(classes), GRID_CLASSES)
    return [classes[place * len(classes) // shown] for place in range(shown)]


def each_class(noises: Sequence[int], classes: Sequence[int]) -> tuple[list[int], Tensor]:
    """Seeds and labels: every class from each of these noises."""
    return [seed for seed in noises for _ in classes], torch.tensor(list(classes)).repeat(len(noises))


def grid_samples(
    sampler: Sampler,
    noises: Sequence[int],
    classes: Sequence[int],
    decode: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    ranks: Ranks,
    stop: StopRequest,
) -> Tensor | None:
    """On rank 0 uint8 [noises, classes, C, H, W]; on the others None. All ranks call it.

    decode: the model's x -> uint8 images [b,C,H,W].
    """
    seeds, labels = each_class(noises, classes)
    batches = generate(sampler, seeds, labels, batch_size=batch_size, ranks=ranks, stop=stop, description="")
    own = [(batch.places.start, decode(batch.x).cpu()) for batch in batches if batch.places]
    parts = [part for parts in ranks.gather_on_main(own) for part in parts]
    if not parts:
        return None
    images = torch.cat([images for _, images in sorted(parts, key=lambda part: part[0])])
    return images.unflatten(0, (-1, len(classes)))
