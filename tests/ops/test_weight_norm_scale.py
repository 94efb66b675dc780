"""The op computes in float32 whatever the weight's dtype, so torch's gradcheck cannot be applied:
its gradients are compared with those of an independent formula in float64."""

import pytest
import torch

from mclr_fast.ops import weight_norm_scale

SHAPES = [(0, 3, 3, 3), (1, 3), (5, 7), (7, 5, 3, 3), (4, 6, 1, 1)]


def formula(weight, gain):
    rows = weight.flatten(1)
    scale = gain / rows.shape[1] ** 0.5
    return (rows / (1e-4 + rows.square().mean(1, keepdim=True).sqrt()) * scale).view(weight.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0])
def test_formula(assert_same, shape, size):
    weight = torch.randn(shape) * size
    assert_same(weight_norm_scale, lambda w: formula(w, 1.0), weight)
    gain = torch.tensor([0.3])
    assert_same(lambda w: weight_norm_scale(w, gain), lambda w: formula(w, gain.double()), weight)


def test_gradient_of_the_gain():
    weight, gain = torch.randn(7, 5, 3, 3), torch.tensor([0.3], requires_grad=True)
    cotangent = torch.randn_like(weight)
    (grad,) = torch.autograd.grad(weight_norm_scale(weight, gain), gain, cotangent)
    products = formula(weight.double(), 1.0) * cotangent.double()
    assert grad.shape == (1,)
    assert (grad - products.sum()).abs() <= 1e-6 * products.abs().sum()


def test_channels_last(assert_same):
    weight = torch.randn(5, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert_same(lambda w: weight_norm_scale(w, -1.7), lambda w: formula(w, -1.7), weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_cast_comes_last(dtype):
    weight, gain = torch.randn(5, 4, 3, 3), torch.tensor([0.3])
    found = weight_norm_scale(weight, gain, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, weight_norm_scale(weight, gain).to(dtype))


def test_keeps_the_dtype_of_the_weight():
    assert weight_norm_scale(torch.randn(2, 3).bfloat16()).dtype == torch.bfloat16
