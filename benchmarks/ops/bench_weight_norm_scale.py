"""weight_norm_scale: reads every weight of the network, writes the effective one."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import BLOCK_WEIGHTS, WIDE_BLOCK_WEIGHTS


def make(count, shapes, dtype):
    """`count` times the weights of these shapes, each with a gain."""
    weights = [torch.randn(shape).requires_grad_() for _ in range(count) for shape in shapes]
    gains = [torch.rand(1).requires_grad_() for _ in weights]
    return weights, gains, [dtype] * len(weights)


OP = Op(
    "weight_norm_scale",
    make,
    WIDE_BLOCK_WEIGHTS,
    {"two blocks": (1, *BLOCK_WEIGHTS)},
    backward_reads=lambda args, outs: args[:2],
    cached=([(64, 64, 3, 3)], [(128, 128, 3, 3)]),
)


@dtypes
@pytest.mark.parametrize("direction", OP.directions)
def test_past_cache(benchmark, suite, dtype, direction):
    past_cache(benchmark, suite, OP, dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", OP.shapes)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OP, shape, dtype)
