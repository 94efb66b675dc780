"""heun_update: reads F, x and the slope, writes the next x, its slope and the next input."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import IMAGES, PAST_CACHE_IMAGE


def make(count, shape, dtype):
    pred = torch.randn(count, *shape).to(dtype, memory_format=torch.channels_last)
    x, x_hat, slope = (torch.randn(count, *shape) for _ in range(3))
    return pred, None, 1.0, x, 2.0, x_hat, 2.5, 1.5, slope, 0.5, "network", dtype


def keywords(function):
    def call(pred, guide, guidance, *state, sigma_data, output, dtype):
        options = dict(guide=guide, guidance=guidance, sigma_data=sigma_data, output=output, dtype=dtype)
        return function(pred, *state, **options)

    return lambda *args: call(*args[:-3], sigma_data=args[-3], output=args[-2], dtype=args[-1])


OP = Op("heun_update", make, PAST_CACHE_IMAGE, IMAGES, no_gradient=True, adapt=keywords)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
