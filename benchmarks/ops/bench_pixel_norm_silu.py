"""pixel_norm_silu: reads x, writes the normalised x and its mp_silu."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import NETWORK, PAST_CACHE_ACTIVATION


def make(count, shape, dtype):
    x = torch.randn(count, *shape).to(dtype, memory_format=torch.channels_last)
    return (x.requires_grad_(),)


OP = Op("pixel_norm_silu", make, PAST_CACHE_ACTIVATION, NETWORK, backward_reads=lambda args, outs: args)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
