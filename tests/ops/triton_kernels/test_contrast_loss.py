import pytest
import torch

from mclr_fast.ops.triton_kernels import contrast_loss

SIGMA_DATA = 0.6


@pytest.fixture(params=["network", "denoised", "network with scalings"])
def check(request, energies, near, randn):
    """check(pred, ...): loss, energies and gradient are the formula's in float64. Returns the gradient."""

    def check(pred, x, x_noisy, sigma, weight):
        coefficients, output = randn(*pred.shape[:2]), request.param.split()[0]
        scalings = (None, None)
        if request.param == "network with scalings":
            sigma, scalings = None, (randn(len(x)), randn(len(x)))
        inputs = (pred, x, x_noisy, sigma, weight, *scalings)
        found = contrast_loss.forward(*inputs[:5], coefficients, SIGMA_DATA, output, *scalings)

        def evaluate(pred, *others):
            pred = pred.detach().requires_grad_()
            energy = energies(pred, *others[:4], SIGMA_DATA, output, *others[4:])
            loss = (coefficients.to(energy.dtype) * energy).sum()
            return loss.detach(), energy.detach(), torch.autograd.grad(loss, pred)[0]

        eager, truth = evaluate(*inputs), evaluate(*(v if v is None else v.double() for v in inputs))
        assert found[0].shape == () and found[0].dtype == torch.float32
        # The terms cancel, so the last places that count are those of what is summed, not of the sum: one
        # for the energies, one for adding them up.
        summed = (coefficients.double() * truth[1]).abs().sum()
        error = (found[0].double() - truth[0]).abs()
        assert bool(error <= 2 * (eager[0].double() - truth[0]).abs() + 2.0**-22 * summed)
        near(found[1], eager[1], truth[1])
        near(found[2], eager[2], truth[2])
        return found[2]

    return check


@pytest.mark.parametrize("shape", [(0, 2, 3, 2, 2), (1, 1, 1, 1, 1), (2, 3, 3, 7, 5), (1, 2, 4, 17, 16)])
def test_formula(check, evaluations, dtype, shape):
    check(*evaluations(shape, dtype))


@pytest.mark.parametrize(("x_columns", "noisy_columns"), [(True, True), (True, False), (False, True)])
def test_columns_of_their_own(check, evaluations, x_columns, noisy_columns):
    check(*evaluations((2, 3, 3, 4, 4), torch.float32, x_columns, noisy_columns))


def test_layouts(check, evaluations, layout):
    pred, *others = evaluations((2, 3, 3, 5, 4), torch.bfloat16)
    pred = layout(pred.flatten(0, 1)).unflatten(0, (2, 3))
    grad = check(pred, *others)
    if pred.flatten(0, 1).is_contiguous(memory_format=torch.channels_last):
        assert grad.stride() == pred.stride()


def test_same_every_time(evaluations, randn):
    inputs, coefficients = evaluations((2, 2, 3, 20, 20), torch.float32), randn(2, 2)
    runs = [contrast_loss.forward(*inputs, coefficients, SIGMA_DATA, "network") for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
