"""States (names -> tensors), as tests compare them."""

import torch


def same(one, other):
    """Whether they have the same names, and under each the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
