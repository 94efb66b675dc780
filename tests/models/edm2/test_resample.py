"""Both forms of each resampling are torch's, values and gradients."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from mclr_fast.models.edm2 import resample

FORMATS = [torch.contiguous_format, torch.channels_last]


def doubled(x):
    return interpolate(x, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (resample.mean_of_view, lambda x: avg_pool2d(x, 2)),
        (resample.copy_of_view, doubled),
        (resample.downsample, lambda x: avg_pool2d(x, 2)),
        (resample.upsample, doubled),
    ],
)
def test_both_forms_are_torchs(ours, torchs, dtype, memory_format):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
    expected = torchs(x)
    cotangent = torch.randn_like(expected)
    found = ours(x)
    grads = [torch.autograd.grad(y, x, cotangent)[0] for y in (found, expected)]
    tolerance = dict(rtol=0, atol=4 * torch.finfo(dtype).eps * 4)
    torch.testing.assert_close(found, expected, **tolerance)
    torch.testing.assert_close(*grads, **tolerance)


def test_the_views_are_channels_last():
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    for form in (resample.mean_of_view, resample.copy_of_view):
        assert form(x).is_contiguous(memory_format=torch.channels_last)
