import pytest
import torch

from mclr_fast.ops.reference.gated_add import gated_add as reference
from mclr_fast.ops.triton_kernels import gated_add


def backward(grads, values, x, y, gate):
    return grads[0], *gated_add.backward(grads[0], y, gate)


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 1, 3), (3, 5, 7), (2, 33, 100), (2, 3, 2304)])
def test_formula(hold, randn, dtype, shape):
    batch, _, channels = shape
    values, grads = hold(
        gated_add.forward,
        backward,
        reference,
        randn(*shape),
        randn(*shape, dtype=dtype),
        randn(batch, channels),
    )
    assert values[0].is_contiguous() and grads[1].is_contiguous()


def test_strided(hold, randn):
    x, y = randn(2, 6, 80), randn(2, 6, 80, dtype=torch.bfloat16)
    gate = randn(2, 6, 40).unbind(1)[1]
    hold(gated_add.forward, backward, reference, x[:, ::2, ::2], y[:, ::2, 1::2], gate)


@pytest.mark.parametrize("most", [1, 4])
def test_several_tiles_a_program(hold, randn, monkeypatch, most):
    monkeypatch.setattr(gated_add, "ENOUGH_PROGRAMS", 1)
    monkeypatch.setattr(gated_add, "MOST_TILES", most)
    hold(gated_add.forward, backward, reference, randn(2, 50, 600), randn(2, 50, 600), randn(2, 600))


def test_no_rows(randn):
    y, gate = randn(2, 0, 4), randn(2, 4)
    grad_y, grad_gate = gated_add.backward(y, y, gate)
    assert grad_y.shape == y.shape and not grad_gate.any()
