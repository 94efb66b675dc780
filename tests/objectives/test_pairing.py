"""Contrastive tuples: which positions a negative may come from, and how often it does."""

import re

import pytest
import torch

from mclr_fast.objectives import pair_labels

LABELS = torch.tensor([4, 4, 0, 1, 0, 4, 7])
CHI_SQUARE = {1: 10.8, 3: 16.3, 4: 18.5, 5: 20.5, 6: 22.5}  # degrees of freedom: the value of p = 0.001


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_negatives", [1, 3, 100])
def test_never_the_own_class(num_negatives):
    index = pair_labels(LABELS, num_negatives, generator=generator())
    assert index.shape == (7, num_negatives) and index.dtype == torch.int64
    assert (LABELS[index] != LABELS[:, None]).all()


@pytest.mark.parametrize("include_own", [False, True])
def test_uniform_over_the_allowed_positions(include_own):
    """So classes come as often as they are in the minibatch."""
    num_draws = 20_000
    index = pair_labels(LABELS, num_draws, include_own=include_own, generator=generator())
    for row, own in zip(index, LABELS, strict=True):
        allowed = torch.ones(7, dtype=torch.bool) if include_own else own != LABELS
        counts = torch.bincount(row, minlength=7)
        assert not counts[~allowed].any()
        expected = num_draws / int(allowed.sum())
        statistic = ((counts[allowed] - expected) ** 2 / expected).sum()
        assert statistic < CHI_SQUARE[int(allowed.sum()) - 1]


def test_draws_are_independent():
    """Two negatives of a row, and of two rows, agree as often as chance has it."""
    labels = torch.arange(5)
    index = pair_labels(labels, 20_000, generator=generator())
    limit = 4 * (0.25 * 0.75 / 10_000) ** 0.5
    for row in index:
        assert abs((row[0::2] == row[1::2]).double().mean() - 1 / 4) < limit
    assert abs((index[0] == index[1]).double().mean() - 3 / 16) < limit


def test_the_generator_decides():
    index = pair_labels(LABELS, 5, generator=generator(3))
    assert torch.equal(pair_labels(LABELS, 5, generator=generator(3)), index)
    assert not torch.equal(pair_labels(LABELS, 5, generator=generator(4)), index)
    state = torch.get_rng_state()
    pair_labels(LABELS, 5, generator=generator(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_more_negatives_than_positions():
    index = pair_labels(torch.tensor([0, 1]), 4, generator=generator())
    assert index.tolist() == [[1] * 4, [0] * 4]


def test_one_class_is_refused_unless_the_own_counts():
    message = (
        "labels has 1 distinct class in this minibatch of 32; MCLR needs at least 2: raise the "
        "batch size or shuffle the data."
    )
    labels = torch.full((32,), 6)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pair_labels(labels, 3)
    assert pair_labels(labels, 3, include_own=True).shape == (32, 3)


@pytest.mark.parametrize("num_negatives", [0, -1])
def test_no_negatives_are_refused(num_negatives):
    with pytest.raises(ValueError, match=f"num_negatives must be at least 1, not {num_negatives}"):
        pair_labels(LABELS, num_negatives)
