"""Seeds dealt to the ranks: every sample once, whichever ranks and batches, and none held on to."""

import weakref
from contextlib import contextmanager

import pytest
import torch

from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.sampling.generate import generate


class Stop:
    """Raises at the given look."""

    def __init__(self, after=0):
        self.after, self.looks = after, 0

    def check(self):
        self.looks += 1
        if self.looks == self.after:
            raise Interrupted


class Pairs:
    """A sampler whose x is (seed, label); held says whether its weights are."""

    nfe, is_held = 1, False

    @contextmanager
    def held(self):
        self.is_held = True
        yield
        self.is_held = False

    def start(self, seeds):
        assert self.is_held
        return torch.tensor(seeds)

    def __call__(self, start, labels):
        assert not torch.is_grad_enabled()
        return torch.stack([start, labels], dim=1)


def as_rank(rank, size):
    ranks = Ranks("cpu")
    ranks.rank, ranks.size, ranks.is_main = rank, size, rank == 0
    return ranks


def batches(num_samples, batch_size, rank=0, size=1, stop=None):
    labels = torch.arange(num_samples) % 3
    seeds = range(50, 50 + num_samples)
    options = {"batch_size": batch_size, "ranks": as_rank(rank, size), "stop": stop or Stop()}
    return generate(Pairs(), seeds, labels, **options)


@pytest.mark.parametrize("num_samples", [1, 2, 9, 24, 31])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_sample_once_in_rounds_of_a_batch_a_rank(num_samples, size):
    by_rank = [list(batches(num_samples, 4, rank, size)) for rank in range(size)]
    rounds = list(zip(*by_rank, strict=True))  # all ranks have as many
    parts = [batch for batches in rounds for batch in batches]
    assert [place for part in parts for place in part.places] == list(range(num_samples))  # in order
    assert all(len(part.places) == len(part.x) <= 4 for part in parts)
    assert all(len(part.places) == 4 for batches in rounds[:-1] for part in batches)
    x = torch.cat([part.x for part in parts])
    assert torch.equal(x[:, 0], torch.arange(50, 50 + num_samples))
    assert torch.equal(x[:, 1], torch.arange(num_samples) % 3)


def test_no_batch_is_held_on_to():
    made = []
    for batch in batches(30, 4):
        made.append(weakref.ref(batch.x))
        del batch
        assert sum(x() is not None for x in made) <= 1


def test_a_signal_is_looked_at_before_every_batch():
    stop, seen = Stop(after=3), []
    with pytest.raises(Interrupted):
        for batch in batches(30, 4, stop=stop):
            seen.append(batch.places)
    assert seen == [range(4), range(4, 8)]
