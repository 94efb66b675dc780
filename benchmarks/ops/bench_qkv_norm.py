"""qkv_norm: reads the joint projection, writes q, k and v."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import NETWORK, PAST_CACHE_ACTIVATION


def make(count, shape, dtype):
    """The projection of activations of `shape`; heads are 64 channels wide."""
    channels, *size = shape
    qkv = torch.randn(count, 3 * channels, *size).to(dtype, memory_format=torch.channels_last)
    return qkv.requires_grad_(), channels // 64


OP = Op("qkv_norm", make, PAST_CACHE_ACTIVATION, NETWORK, backward_reads=lambda args, outs: args)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
