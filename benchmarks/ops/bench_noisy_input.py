"""noisy_input: reads x, draws eps, writes the noisy images and the network's input."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import IMAGES, PAST_CACHE_IMAGE


def make(count, shape, dtype):
    x, sigma = torch.randn(count, *shape), torch.rand(count) + 0.1
    return x, sigma, None, 3, 2, torch.arange(count), 0.5, dtype


def keywords(function):
    def call(x, sigma, eps, seed, stream, position, sigma_data, dtype):
        return function(x, sigma, seed, stream, position, eps=eps, sigma_data=sigma_data, dtype=dtype)

    return call


OP = Op("noisy_input", make, PAST_CACHE_IMAGE, IMAGES, no_gradient=True, philox=True, adapt=keywords)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
