"""weighted_sq_error: reads the predictions and, once an image, x and x_noisy; backward writes a gradient."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import LABELS, PAST_CACHE_IMAGE, PREDICTIONS


def make(count, shape, dtype):
    """`count` images under `LABELS` labels; predictions as a convolution leaves them."""
    pred = torch.randn(count * LABELS, *shape).to(dtype, memory_format=torch.channels_last)
    x, x_noisy = (torch.randn(count, *shape) for _ in range(2))
    sigma, weight = torch.rand(count) + 0.1, torch.rand(count)
    return pred.unflatten(0, (count, LABELS)).requires_grad_(), x, x_noisy, sigma, weight, 0.5, "network"


def keywords(function):
    return lambda *args: function(*args[:5], sigma_data=args[5], output=args[6])


OP = Op(
    "weighted_sq_error",
    make,
    PAST_CACHE_IMAGE,
    PREDICTIONS,
    backward_reads=lambda args, outs: args[:5],
    adapt=keywords,
)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
