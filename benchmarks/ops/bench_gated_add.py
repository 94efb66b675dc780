"""gated_add: reads x in float32 and y, writes x + gate y; backward reads y."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import PAST_CACHE_TOKENS, TOKENS


def make(count, shape, dtype):
    """x takes no gradient here: its own is the result's, for which nothing is moved."""
    x, y, gate = (
        torch.randn(count, *shape),
        torch.randn(count, *shape).to(dtype),
        torch.randn(count, shape[1]),
    )
    return x, y.requires_grad_(), gate.requires_grad_()


OP = Op(
    "gated_add", make, PAST_CACHE_TOKENS, TOKENS,
    backward_reads=lambda args, outs: args[1:],
    cached=((20, 1024), (70, 1024)),
)  # fmt: skip


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
