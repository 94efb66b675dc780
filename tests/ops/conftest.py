"""How an op is held to the truth, and the one tolerance of the op tests."""

import pytest
import torch

ULPS = 4  # units in the last place of a result's largest value; about 2 are used


def _close(found, expected, dtype):
    assert found.shape == expected.shape
    limit = ULPS * torch.finfo(dtype).eps * expected.abs().amax() if expected.numel() else 0
    assert bool(((found.double() - expected).abs() <= limit).all()), (found - expected).abs().max()


@pytest.fixture(params=["contiguous", "channels_last"])
def layout(request):
    """Puts a 4-dim tensor into a memory format."""
    memory_format = getattr(torch, f"{request.param}_format", None) or torch.channels_last
    return lambda x: x.contiguous(memory_format=memory_format)


@pytest.fixture
def assert_same():
    """assert_same(op, formula, *inputs): results and gradients of `op` are those of `formula`.

    `formula` is written independently, and it and its gradients are evaluated in float64 at the values
    that the inputs have in their own dtype.
    """

    def assert_same(op, formula, *inputs):
        dtype = inputs[0].dtype
        near = [x.detach().requires_grad_() for x in inputs]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        found, expected = op(*near), formula(*exact)
        if isinstance(found, torch.Tensor):
            found, expected = (found,), (expected,)
        cotangents = [torch.randn_like(y) for y in found]
        for y, z in zip(found, expected, strict=True):
            _close(y, z, dtype)
        grads = torch.autograd.grad(found, near, cotangents)
        truths = torch.autograd.grad(expected, exact, [c.double() for c in cotangents])
        for y, z in zip(grads, truths, strict=True):
            _close(y, z, dtype)

    return assert_same


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
