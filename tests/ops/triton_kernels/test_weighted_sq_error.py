import pytest
import torch

from mclr_fast.ops.triton_kernels import weighted_sq_error

SIGMA_DATA = 0.6


@pytest.fixture(params=["network", "denoised"])
def op(request, energies):
    def forward(*inputs):
        return weighted_sq_error.forward(*inputs, SIGMA_DATA, request.param)

    def backward(grads, values, *inputs):
        return weighted_sq_error.backward(grads[0], *inputs, SIGMA_DATA, request.param)

    return forward, backward, lambda *inputs: energies(*inputs, SIGMA_DATA, request.param)


@pytest.mark.parametrize("shape", [(0, 2, 3, 2, 2), (1, 1, 1, 1, 1), (2, 3, 3, 7, 5), (1, 2, 4, 17, 16)])
def test_formula(hold, evaluations, op, dtype, shape):
    hold(*op, *evaluations(shape, dtype))


@pytest.mark.parametrize(("x_columns", "noisy_columns"), [(True, True), (True, False), (False, True)])
def test_columns_of_their_own(hold, evaluations, op, x_columns, noisy_columns):
    hold(*op, *evaluations((2, 3, 3, 4, 4), torch.float32, x_columns, noisy_columns))


def test_layouts(hold, evaluations, op, layout):
    pred, *others = evaluations((2, 3, 3, 5, 4), torch.bfloat16)
    pred = layout(pred.flatten(0, 1)).unflatten(0, (2, 3))
    _, (grad,) = hold(*op, pred, *others)
    if pred.flatten(0, 1).is_contiguous(memory_format=torch.channels_last):
        assert grad.stride() == pred.stride()


@pytest.mark.parametrize("shape", [(0, 2, 3, 2, 2), (1, 1, 1, 1, 1), (2, 3, 3, 7, 5), (1, 2, 4, 17, 16)])
@pytest.mark.parametrize("per_column", [False, True])
def test_scalings_of_another_denoiser(hold, evaluations, energies, randn, dtype, shape, per_column):
    pred, x, x_noisy, _, weight = evaluations(shape, dtype, per_column, per_column)

    def spread(pred, x, x_noisy, weight, c_skip, c_out):
        return pred, x, x_noisy, None, weight, SIGMA_DATA, "network", c_skip, c_out

    hold(
        lambda *inputs: weighted_sq_error.forward(*spread(*inputs)),
        lambda grads, values, *inputs: weighted_sq_error.backward(grads[0], *spread(*inputs)),
        lambda *inputs: energies(*spread(*inputs)),
        *(pred, x, x_noisy, weight, randn(shape[0]), randn(shape[0])),
    )
