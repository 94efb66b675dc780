"""The order of a run's images: a permutation every epoch, from (seed, epoch) alone."""

import time

import numpy as np
import pytest

from mclr_fast.data import SampleOrder


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


def test_no_position():
    assert SampleOrder(5, seed=0).indices(np.arange(0)).shape == (0,)


def test_a_steps_indices_cost_its_size_not_the_data_sets():
    """ImageNet's 1.28 million: a permutation an epoch (0.3 us an image), look-ups after it."""
    order = SampleOrder(1_281_167, seed=0)
    order.indices(np.arange(2048))
    started = time.perf_counter()
    for step in range(1, 51):
        order.indices(np.arange(step * 2048, (step + 1) * 2048))
    assert time.perf_counter() - started < 50 * 2e-3  # 60 us each, were the machine idle
