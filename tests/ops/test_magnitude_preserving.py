"""EDM2's primitives, from which the ops are made."""

import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast import ops


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 7), (3, 5, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(assert_same, shape, dtype):
    def formula(x):
        dims = tuple(range(1, x.ndim))
        return x / (1e-4 + x.square().mean(dims, keepdim=True).sqrt())

    assert_same(ops.normalize, formula, torch.randn(shape, dtype=dtype))


def test_normalize_at_zero():
    x = torch.zeros(2, 3, requires_grad=True)
    y = ops.normalize(x)
    assert torch.equal(y, x)
    (grad,) = torch.autograd.grad(y, x, torch.ones(2, 3))
    torch.testing.assert_close(grad, torch.full((2, 3), 1e4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silu_and_sum(assert_same, dtype):
    a, b = torch.randn(2, 7, 5, dtype=dtype)
    assert_same(ops.mp_silu, lambda x: x * x.sigmoid() / 0.596, a)
    for t in (0.0, 0.3, 0.5, 1.0):
        scale = ((1 - t) ** 2 + t**2) ** 0.5
        assert_same(
            lambda a, b, t=t: ops.mp_sum(a, b, t),
            lambda a, b, t=t, scale=scale: ((1 - t) * a + t * b) / scale,
            a,
            b,
        )


def test_gradcheck():
    a, b = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(ops.normalize, a)
    assert gradcheck(ops.mp_silu, a)
    assert gradcheck(lambda a, b: ops.mp_sum(a, b, 0.3), (a, b))


def test_fourier():
    x, freqs, phases = torch.randn(3), torch.randn(4), torch.rand(4)
    angle = x.double()[:, None] * freqs.double() + phases.double()
    found = ops.mp_fourier(x.half(), freqs, phases)
    assert found.dtype == torch.float32 and found.shape == (3, 4)
    found = ops.mp_fourier(x, freqs, phases)
    torch.testing.assert_close(found.double(), 2**0.5 * angle.cos(), rtol=0, atol=1e-6)
