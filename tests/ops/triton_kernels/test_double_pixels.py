import pytest
import torch

from mclr_fast.ops.reference.double_pixels import double_pixels as formula
from mclr_fast.ops.reference.double_pixels import halve_pixels
from mclr_fast.ops.triton_kernels import double_pixels


@pytest.fixture(params=[False, True], ids=["pixels", "phases"])
def check(hold, request):
    """check(x): values and gradient of the kernels."""
    phases = request.param

    def check(x):
        return hold(
            lambda x: double_pixels.forward(x, phases),
            lambda grads, values, x: double_pixels.backward(*grads, phases),
            lambda x: formula(x, phases),
            x,
        )

    return check


@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (1, 4, 1, 1), (2, 20, 7, 3), (3, 96, 5, 9)])
def test_formula(check, randn, dtype, shape):
    values, grads = check(randn(*shape, dtype=dtype))
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in values + grads)


def test_layouts(check, randn, layout):
    check(layout(randn(2, 8, 3, 4)))


def test_means(hold, randn, dtype):
    hold(
        double_pixels.halve,
        lambda grads, values, x: double_pixels.halve_backward(*grads),
        halve_pixels,
        randn(2, 40, 6, 4, dtype=dtype),
    )
