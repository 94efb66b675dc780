"""double_pixels: reads x or a convolution's windows, writes an image of twice the height and width."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import NETWORK, PAST_CACHE_ACTIVATION


def make(count, shape, dtype):
    channels, height, width = shape
    x = torch.randn(count, 4 * channels, height // 2 + 1, width // 2 + 1)
    return x.to(dtype, memory_format=torch.channels_last).requires_grad_(), True


def adapt(function):
    return lambda x, phases: function(x, phases=phases)


OP = Op("double_pixels", make, PAST_CACHE_ACTIVATION, NETWORK, adapt=adapt)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
