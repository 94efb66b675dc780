import pytest
import torch

from mclr_fast.ops.reference.modulate_layer_norm import modulate_layer_norm as reference
from mclr_fast.ops.triton_kernels import modulate_layer_norm

EPS = 1e-6


def run(hold, dtype, *inputs):
    def formula(x, scale, shift):
        return reference(x, scale, shift, EPS, torch.float64 if x.dtype == torch.float64 else dtype)

    return hold(
        lambda x, scale, shift: modulate_layer_norm.forward(x, scale, shift, EPS, dtype),
        lambda grads, values, x, scale, shift: modulate_layer_norm.backward(grads[0], x, scale, EPS),
        formula,
        *inputs,
    )


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 1, 3), (3, 5, 7), (2, 33, 100), (2, 3, 2304)])
def test_formula(hold, randn, dtype, shape):
    batch, _, channels = shape
    values, grads = run(hold, dtype, randn(*shape), randn(batch, channels), randn(batch, channels))
    assert values[0].is_contiguous() and all(grad.is_contiguous() for grad in grads)


def test_strided(hold, randn):
    vectors = randn(2, 6, 40).unbind(1)
    run(hold, torch.bfloat16, randn(2, 6, 80)[:, ::2, ::2], vectors[2], vectors[4])


@pytest.mark.parametrize("most", [1, 4])
def test_several_tiles_a_program(hold, randn, monkeypatch, most):
    monkeypatch.setattr(modulate_layer_norm, "ENOUGH_PROGRAMS", 1)
    monkeypatch.setattr(modulate_layer_norm, "MOST_TILES", most)
    run(hold, torch.float32, randn(2, 50, 600), randn(2, 600), randn(2, 600))


def test_no_rows(randn):
    x, vector = randn(2, 0, 4), randn(2, 4)
    grads = modulate_layer_norm.backward(x, x, vector, EPS)
    assert grads[0].shape == x.shape and not grads[1].any() and not grads[2].any()
