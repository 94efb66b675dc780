"""mp_cat_silu: reads both operands, writes the concatenation and its mp_silu."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import NETWORK, PAST_CACHE_ACTIVATION


def make(count, shape, dtype):
    a, b = (torch.randn(count, *shape).to(dtype, memory_format=torch.channels_last) for _ in range(2))
    return a.requires_grad_(), b.requires_grad_(), 0.5


OP = Op("mp_cat_silu", make, PAST_CACHE_ACTIVATION, NETWORK, backward_reads=lambda args, outs: outs[:1])


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
