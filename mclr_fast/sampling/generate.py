"""Many samples: seeds dealt to the ranks, batch by batch, the same sample for a seed at any world size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.stages import progress_bar

from .sampler import Sampler


@dataclass(frozen=True)
class Batch:
    """Samples that this rank made.

    Attributes: places, which of the seeds they are of; x [len(places), ...], in the model's own range, on the
    rank's device.
    """

    places: range
    x: Tensor


def generate(
    sampler: Sampler,
    seeds: Sequence[int],
    labels: Tensor,
    *,
    batch_size: int,
    ranks: Ranks,
    stop: StopRequest,
    description: str = "sampling",
) -> Iterator[Batch]:
    """Sample this rank's part of the (seed, label), a batch at a time; the iterator keeps none of them.

    Shapes    labels: int64 [n], n = len(seeds) -> batches of at most batch_size.
    Bar       Of this description; none where that is empty.
    Order     That of `Ranks.rounds`: to gather every round is to have the samples in order. All ranks get a
              batch of every round, in the last one perhaps an empty one.
    Errors    Interrupted, between batches, after a signal.
    """
    calls, started = 0, time.perf_counter()
    with sampler.held(), progress_bar(description, len(seeds), 0, ranks.is_main and bool(description)) as bar:
        for places, own in ranks.rounds(len(seeds), batch_size):
            stop.check()
            x = _sample(sampler, seeds, labels, own or places[:1], ranks.device)
            yield Batch(own, x[: len(own)])  # where a rank has no share, one sample gives the shape
            calls += sampler.nfe
            bar.set_postfix_str(f"{calls / (time.perf_counter() - started):.3g} calls/s", refresh=False)
            bar.update(len(places))


@torch.no_grad()
def _sample(
    sampler: Sampler, seeds: Sequence[int], labels: Tensor, places: range, device: torch.device
) -> Tensor:
    start = sampler.start([seeds[place] for place in places])
    return sampler(start, labels[places.start : places.stop].to(device))
