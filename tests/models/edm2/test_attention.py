"""EDM2's attention computes torch's, as exactly as torch does."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mclr_fast.models.edm2.attention import attention


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 1), (0, 2, 4, 8), (2, 1, 16, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients(shape, dtype):
    """Those of torch's attention in float64, within twice the error of torch's in this dtype."""
    torch.manual_seed(0)
    *inputs, cotangent = (torch.randn(shape).to(dtype) for _ in range(4))

    def results(function, wide):
        tensors = [x.to(wide).requires_grad_() for x in inputs]
        y = function(*tensors)
        return [y, *torch.autograd.grad(y, tensors, cotangent.to(wide))]

    truths = results(scaled_dot_product_attention, torch.float64)
    plain = results(scaled_dot_product_attention, dtype)
    for found, eager, truth in zip(results(attention, dtype), plain, truths, strict=True):
        assert found.dtype == dtype and found.shape == truth.shape
        if truth.numel():
            ulp = torch.finfo(dtype).eps * truth.abs().max()
            assert (found - truth).abs().max() <= 2 * (eager - truth).abs().max() + 2 * ulp
