import pytest
import torch

from mclr_fast.ops.reference.magnitude_preserving import mp_cat, mp_silu
from mclr_fast.ops.triton_kernels import mp_cat_silu

T = 0.4


def formula(a, b):
    num_rows = max(len(a), len(b))
    a, b = (v.repeat_interleave(num_rows // max(len(v), 1), dim=0) for v in (a, b))
    cat = mp_cat(a, b, T)
    return cat, mp_silu(cat)


def forward(a, b):
    return mp_cat_silu.forward(a, b, T)


def backward(grads, values, a, b):
    return mp_cat_silu.backward(*grads, values[0], T, len(a), len(b), a.shape[1])


@pytest.mark.parametrize(
    ("num_a", "num_b", "channels_a", "channels_b", "size"),
    [
        (0, 0, 4, 2, (2, 2)),
        (1, 1, 1, 1, (1, 1)),
        (2, 6, 5, 3, (7, 3)),
        (6, 2, 5, 3, (7, 3)),
        (2, 2, 40, 24, (9, 5)),
        (1, 2, 96, 8, (3, 3)),
    ],
)
def test_formula(hold, randn, dtype, num_a, num_b, channels_a, channels_b, size):
    a = randn(num_a, channels_a, *size, dtype=dtype)
    b = randn(num_b, channels_b, *size, dtype=dtype)
    values, grads = hold(forward, backward, formula, a, b)
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in values + grads)


def test_layouts(hold, randn, layout):
    hold(forward, backward, formula, layout(randn(2, 6, 3, 4)), layout(randn(4, 5, 3, 4)))
