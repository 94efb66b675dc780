"""The order of a run's images: a permutation every epoch, from (seed, epoch) alone."""

import numpy as np
import pytest

from mclr_fast import ops
from mclr_fast.data import SampleOrder
from mclr_fast.data.order import expected_one_class


def epoch(order, number):
    n = order.num_samples
    return order.indices(np.arange(number * n, (number + 1) * n))


@pytest.mark.parametrize("num_samples", [1, 2, 101, 3000])
def test_every_epoch_is_a_permutation(num_samples):
    order = SampleOrder(num_samples, seed=5)
    for number in (0, 1, 7, 2**33):
        indices = epoch(order, number)
        assert indices.dtype == np.int64
        assert np.array_equal(np.sort(indices), np.arange(num_samples))


def test_epochs_and_seeds_differ():
    orders = [epoch(SampleOrder(100, seed), number) for seed in (0, 1, 2**40) for number in (0, 1)]
    for i, left in enumerate(orders):
        assert (left == np.arange(100)).mean() < 0.1
        assert all((left == right).mean() < 0.1 for right in orders[:i])


def test_permutations_are_uniform():
    """All 24 orders of four images come about equally often."""
    order, num_epochs = SampleOrder(4, seed=0), 2400
    places = order.indices(np.arange(4 * num_epochs)).reshape(num_epochs, 4)
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 49.7  # chi-square, 23 degrees: p = 0.001


def test_positions_across_the_epoch_boundary():
    order = SampleOrder(7, seed=1)
    expected = np.concatenate([epoch(order, 0)[5:], epoch(order, 1), epoch(order, 2)[:3]])
    assert np.array_equal(order.indices(np.arange(5, 17)), expected)


def test_an_index_depends_on_its_position_alone():
    """Not on the rank's share, on what was asked before, or on the order of asking."""
    whole = SampleOrder(11, seed=2).indices(np.arange(60))
    for rank in range(3):
        assert np.array_equal(SampleOrder(11, seed=2).indices(np.arange(rank, 60, 3)), whole[rank::3])
    resumed = SampleOrder(11, seed=2)
    assert np.array_equal(resumed.indices(np.arange(41, 60)), whole[41:])
    shuffled = np.array([59, 0, 12, 12, 33])
    assert np.array_equal(resumed.indices(shuffled), whole[shuffled])


def test_no_position_has_no_index():
    assert SampleOrder(5, seed=0).indices(np.arange(0)).shape == (0,)


def test_an_epochs_permutation_is_drawn_once(monkeypatch):
    """So a step's indices cost its size, not the data set's; also where two epochs meet in a step."""
    drawn, random_words = [], ops.random_words

    def counted(seed, stream, position, count):
        drawn.append((int(position), count))
        return random_words(seed, stream, position, count)

    monkeypatch.setattr(ops, "random_words", counted)
    order = SampleOrder(1000, seed=0)
    for first in range(0, 3000, 64):
        order.indices(np.arange(first, first + 64))
    assert drawn == [(0, 2000), (1, 2000), (2, 2000), (3, 2000)]


@pytest.mark.parametrize("counts", [(6, 2), (4, 4), (1, 1, 6), (8,)])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_minibatches_of_one_class_are_expected_as_often_as_they_come(counts, batch_size):
    """The expected number is that of 2,000 epochs, within four standard deviations."""
    labels = np.repeat(np.arange(len(counts)), counts)
    num_steps = 2000 * 8 // batch_size
    drawn = labels[SampleOrder(8, seed=1).indices(np.arange(2000 * 8))].reshape(num_steps, batch_size)
    found = int((drawn == drawn[:, :1]).all(axis=1).sum())
    expected = expected_one_class(labels, batch_size, num_steps)
    assert abs(found - expected) <= 4 * expected**0.5 * (0 < expected < num_steps)


def test_no_minibatch_larger_than_a_class_is_expected_to_hold_it_alone():
    """Neither where classes are smaller than a minibatch, nor where all of the data are."""
    assert expected_one_class(np.repeat([0, 1], 5), 6, 10**9) == 0
    assert expected_one_class(np.repeat([0, 1], 5), 11, 10**9) == 0
    assert 0 < expected_one_class(np.arange(1000).repeat(1000), 32, 10**6) < 1e-60
