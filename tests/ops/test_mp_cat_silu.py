import math

import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import mp_cat_silu


def formula(a, b, t):
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    x = torch.cat([a * (scale * (1 - t) / a.shape[1] ** 0.5), b * (scale * t / b.shape[1] ** 0.5)], dim=1)
    return x, x * x.sigmoid() / 0.596


@pytest.mark.parametrize(
    ("shape", "num_skip"),
    [((0, 4, 2, 2), 3), ((1, 1, 1, 1), 1), ((3, 5, 7, 3), 2), ((2, 8, 4, 4), 8)],
)
@pytest.mark.parametrize("t", [0.35, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, num_skip, t, dtype):
    a = layout(torch.randn(shape, dtype=dtype))
    b = layout(torch.randn(shape[0], num_skip, *shape[2:], dtype=dtype))
    assert_same(lambda a, b: mp_cat_silu(a, b, t), lambda a, b: formula(a, b, t), a, b)


def test_gradcheck():
    a = torch.randn(2, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, b: mp_cat_silu(a, b, 0.35), (a, b))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_magnitude_is_kept(t):
    """Of unit inputs the result has unit mean square, whatever the widths."""
    x, _ = mp_cat_silu(torch.ones(1, 3, 2, 2), torch.ones(1, 11, 2, 2), t)
    torch.testing.assert_close(x.square().mean(), torch.tensor(1.0))
