import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import pixel_norm_silu

SHAPES = [(0, 4, 2, 2), (1, 3, 1, 1), (3, 5, 7, 3), (2, 33, 4, 4)]


def formula(x):
    x = x / (1e-4 + x.square().mean(1, keepdim=True).sqrt())
    return x, x * x.sigmoid() / 0.596


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, dtype):
    assert_same(pixel_norm_silu, formula, layout(torch.randn(shape, dtype=dtype)))


def test_gradcheck():
    assert gradcheck(pixel_norm_silu, torch.randn(2, 3, 2, 2, dtype=torch.float64).requires_grad_())


def test_a_zero_pixel_stays_zero():
    x = torch.randn(1, 4, 2, 2)
    x[..., 0, 1] = 0
    x.requires_grad_()
    normalized, activated = pixel_norm_silu(x)
    assert not normalized[..., 0, 1].any() and not activated[..., 0, 1].any()
    (grad,) = torch.autograd.grad(normalized.sum(), x)
    torch.testing.assert_close(grad[..., 0, 1], torch.full((1, 4), 1e4))
