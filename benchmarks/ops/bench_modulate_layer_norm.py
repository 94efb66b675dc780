"""modulate_layer_norm: reads x in float32, writes LN(x) (1 + scale) + shift; backward reads x again."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import PAST_CACHE_TOKENS, TOKENS


def make(count, shape, dtype):
    x, vectors = torch.randn(count, *shape), [torch.randn(count, shape[1]) for _ in range(2)]
    return *(tensor.requires_grad_() for tensor in (x, *vectors)), 1e-6, dtype


OP = Op(
    "modulate_layer_norm", make, PAST_CACHE_TOKENS, TOKENS,
    backward_reads=lambda args, outs: args[:2],
    cached=((40, 1024), (150, 1024)),
)  # fmt: skip


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
