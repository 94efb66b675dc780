"""modulate_silu: reads y, writes mp_silu(y (1 + emb)); with dropout, draws the mask."""

import pytest
import torch
from pointwise import Op, dtypes, network, past_cache
from shapes import LABELS, NETWORK, PAST_CACHE_ACTIVATION


def make(count, shape, dtype):
    y = torch.randn(count, *shape).to(dtype, memory_format=torch.channels_last)
    return y.requires_grad_(), torch.randn(count, shape[0]).requires_grad_()


def make_dropout(count, shape, dtype):
    return *make(count, shape, dtype), 0.1, (3, 1 << 16, torch.arange(count))


def make_shared(count, shape, dtype):
    """One y for the labels of an image, as in the first block."""
    y = torch.randn(max(count // LABELS, 1), *shape).to(dtype, memory_format=torch.channels_last)
    return y.requires_grad_(), torch.randn(len(y) * LABELS, shape[0]).requires_grad_()


def op(make, **options):
    return Op(
        "modulate_silu",
        make,
        PAST_CACHE_ACTIVATION,
        NETWORK,
        backward_reads=lambda args, outs: args[:2],
        **options,
    )


OPS = {"": op(make), "dropout": op(make_dropout, philox=True), "shared": op(make_shared)}


@dtypes
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("variant", OPS)
def test_past_cache(benchmark, suite, variant, dtype, direction):
    benchmark.extra_info["case"] = variant
    past_cache(benchmark, suite, OPS[variant], dtype, direction)


@dtypes
@pytest.mark.parametrize("shape", NETWORK)
def test_network(benchmark, suite, dtype, shape):
    network(benchmark, suite, OPS[""], shape, dtype)


@dtypes
@pytest.mark.parametrize("variant", ["dropout", "shared"])
def test_network_variant(benchmark, suite, variant, dtype):
    network(benchmark, suite, OPS[variant], "64x32x32", dtype)
    benchmark.extra_info["case"] = f"64x32x32 {variant}"
