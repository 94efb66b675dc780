import math

import pytest
import torch

from mclr_fast.ops.reference.magnitude_preserving import mp_silu, mp_sum
from mclr_fast.ops.triton_kernels import mp_sum_clip

T = 0.3


def formula_of(clip, with_silu):
    def formula(a, b):
        num_rows = max(len(a), len(b))
        a, b = (v.repeat_interleave(num_rows // max(len(v), 1), dim=0) for v in (a, b))
        out = mp_sum(a, b, T).clamp(-clip, clip)
        return (out, mp_silu(out)) if with_silu else out

    return formula


def op(clip, with_silu):
    def forward(a, b):
        return (mp_sum_clip.forward_silu if with_silu else mp_sum_clip.forward)(a, b, T, clip)

    def backward(grads, values, a, b):
        function = mp_sum_clip.backward_silu if with_silu else mp_sum_clip.backward
        return function(*grads, values[0], T, clip, len(a), len(b))

    return forward, backward, formula_of(clip, with_silu)


@pytest.fixture
def operands(randn):
    """a and b of a shape with `num_a` and `num_b` rows, the sum not so near +-1 that rounding decides."""

    def operands(num_a, num_b, shape, dtype):
        a, b = randn(num_a, *shape, dtype=dtype), randn(num_b, *shape, dtype=dtype)
        near = (formula_of(math.inf, False)(a.double(), b.double()).abs() - 1).abs() < 0.02
        alone, shared = (a, b) if num_a >= num_b else (b, a)
        alone.masked_fill_(near, 9.0)
        again = (formula_of(math.inf, False)(a.double(), b.double()).abs() - 1).abs()
        assert not shared.numel() or again.amin() > 0.005
        return a, b

    return operands


@pytest.mark.parametrize("with_silu", [False, True])
@pytest.mark.parametrize("clip", [math.inf, 1.0])
@pytest.mark.parametrize(
    ("num_a", "num_b", "shape"),
    [(0, 0, (4, 2, 2)), (1, 1, (1, 1, 1)), (2, 6, (5, 7, 3)), (6, 2, (5, 7, 3)), (3, 3, (8, 3, 3))],
)
def test_formula(hold, operands, dtype, num_a, num_b, shape, clip, with_silu):
    values, grads = hold(*op(clip, with_silu), *operands(num_a, num_b, shape, dtype))
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in values + grads)


@pytest.mark.parametrize("with_silu", [False, True])
def test_layouts_and_several_tiles(hold, operands, layout, with_silu):
    a, b = operands(1, 2, (24, 9, 10), torch.float32)
    hold(*op(1.0, with_silu), layout(a), layout(b))


def test_nan_is_not_hidden(randn):
    a = randn(1, 3, 2, 2)
    a[0, 1] = math.nan
    for out in mp_sum_clip.forward_silu(a, randn(1, 3, 2, 2), T, 0.5):
        assert torch.equal(out.isnan(), a.isnan())
