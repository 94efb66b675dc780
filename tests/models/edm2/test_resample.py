"""A convolution of a doubled image, by the small one's windows."""

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from mclr_fast.models.edm2 import resample

FORMATS = [torch.contiguous_format, torch.channels_last]


def doubled(x):
    return interpolate(x, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 1, 1), (0, 5, 2, 2), (3, 8, 5, 1)])
def test_a_convolution_of_a_doubled_image(shape, dtype, memory_format):
    """Values and both gradients are the doubled image's in float64; half precision rounds kernels too."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(7, shape[1], 3, 3, dtype=dtype).contiguous(memory_format=memory_format)
    weight.requires_grad_()
    found = resample.conv_of_doubled(x, weight)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    expected = conv2d(doubled(exact[0]), exact[1], padding=1)
    cotangent = torch.randn_like(found)
    grads = torch.autograd.grad(found, (x, weight), cotangent)
    truths = torch.autograd.grad(expected, exact, cotangent.double())
    assert found.dtype == dtype
    for value, truth in zip((found, *grads), (expected, *truths), strict=True):
        size = truth.detach().abs().amax().item() if truth.numel() else 0.0
        tolerance = 8 * torch.finfo(dtype).eps * size
        torch.testing.assert_close(value.double(), truth, rtol=0, atol=tolerance)


def test_its_kernels_are_channels_last():
    weight = torch.randn(6, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    kernels = resample.phase_kernels(weight)
    assert kernels.shape == (24, 8, 2, 2) and kernels.is_contiguous(memory_format=torch.channels_last)
    found = resample.conv_of_doubled(torch.randn(2, 8, 4, 4), weight)
    assert found.is_contiguous(memory_format=torch.channels_last)
