"""A convolution's gradients, however they are made, are torch's."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import conv2d

from mclr_fast.models.edm2 import convolution
from mclr_fast.models.edm2.convolution import _TurnedGradient


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_a_turned_gradient(kernel, wanted):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_(wanted[0])
    weight = torch.randn(4, 6, kernel, kernel).requires_grad_(wanted[1])
    inputs = [t for t in (x, weight) if t.requires_grad]
    found, expected = _TurnedGradient.apply(x, weight), conv2d(x, weight, padding=kernel // 2)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    grads = [torch.autograd.grad(y, inputs, cotangent) for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_gradcheck():
    x, weight = (torch.randn(shape, dtype=torch.float64) for shape in ((1, 3, 4, 2), (2, 3, 3, 3)))
    assert gradcheck(_TurnedGradient.apply, (x.requires_grad_(), weight.requires_grad_()))


@pytest.mark.gpu
@pytest.mark.parametrize(("num_in", "turned"), [(48, True), (16, False)])
def test_large_wide_inputs_have_one_on_a_gpu(monkeypatch, num_in, turned):
    monkeypatch.setattr(convolution, "LARGE", 2 * 16 * 16)
    shapes = (2, num_in, 16, 16), (16, num_in, 3, 3)
    x, weight = (torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_() for shape in shapes)
    found = convolution.convolution(x, weight)
    assert (type(found.grad_fn).__name__ == "_TurnedGradientBackward") == turned
    expected = conv2d(x.double(), weight.double(), padding=1)
    cotangent = torch.randn_like(found)
    grads = torch.autograd.grad(found, (x, weight), cotangent)
    truths = torch.autograd.grad(expected, (x, weight), cotangent.double())
    for grad, truth in zip(grads, truths, strict=True):
        torch.testing.assert_close(grad, truth, rtol=0.02, atol=0.02 * truth.abs().max().item())
