import math

import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import mp_sum_clip


def formula(a, b, t, clip):
    x = ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)
    return x if clip is None else torch.where(x.abs() <= clip, x, clip * x.detach().sign())


@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (1, 1, 1, 1), (3, 5, 7, 3)])
@pytest.mark.parametrize("t", [0.3, 0.5])
@pytest.mark.parametrize("clip", [None, 0.7, 256.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, t, clip, dtype):
    a, b = (layout(torch.randn(shape, dtype=dtype)) for _ in range(2))
    assert_same(lambda a, b: mp_sum_clip(a, b, t, clip), lambda a, b: formula(a, b, t, clip), a, b)


def test_gradcheck():
    a, b = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, b: mp_sum_clip(a, b, 0.3, 0.7), (a, b))


def test_clipped_values_get_no_gradient():
    a = torch.tensor([-3.0, 0.1, 3.0], requires_grad=True)
    y = mp_sum_clip(a, torch.zeros(3), 0.0, 1.0)
    assert y.tolist() == [-1.0, a[1].item(), 1.0]
    assert torch.autograd.grad(y.sum(), a)[0].tolist() == [0.0, 1.0, 0.0]
