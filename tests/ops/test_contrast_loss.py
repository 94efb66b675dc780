import pytest
import torch

from mclr_fast.ops import contrast_loss, weighted_sq_error


def inputs(shape, per_column):
    num_images, num_columns, *image = shape
    lead = (num_images, num_columns) if per_column else (num_images,)
    x, x_noisy = torch.randn(2, *lead, *image)
    sigma, weight = torch.rand(2, num_images) + 0.1
    return torch.randn(shape), x, x_noisy, sigma, weight


@pytest.mark.parametrize("shape", [(0, 4, 1, 2, 2), (1, 1, 1, 1, 1), (3, 4, 3, 5, 7)])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("output", ["network", "denoised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_those_of_the_energies(shape, per_column, output, dtype):
    pred, *rest = inputs(shape, per_column)
    coefficients = torch.randn(shape[:2])
    one, two = (pred.to(dtype).requires_grad_() for _ in range(2))
    loss, found = contrast_loss(one, *rest, coefficients, sigma_data=0.6, output=output)
    energies = weighted_sq_error(two, *rest, sigma_data=0.6, output=output)
    torch.testing.assert_close(found, energies.detach(), rtol=1e-6, atol=0)

    products = coefficients.double() * energies.detach().double()
    assert loss.shape == () and loss.dtype == torch.float32
    assert (loss - products.sum()).abs() <= 1e-6 * products.abs().sum()

    (grad,) = torch.autograd.grad(loss, one)
    (truth,) = torch.autograd.grad(energies, two, coefficients)
    assert grad.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(grad, truth, rtol=eps, atol=eps * 0.01)


def test_energies_carry_no_gradient():
    pred, *rest = inputs((2, 3, 1, 4, 4), False)
    loss, energies = contrast_loss(pred.requires_grad_(), *rest, torch.ones(2, 3))
    assert loss.requires_grad and not energies.requires_grad


WRONG = {
    "pred": torch.zeros(2, 3, 4, 4),
    "x": torch.zeros(2, 2, 1, 4, 4),
    "x_noisy": torch.zeros(2, 1, 4, 5),
    "sigma": torch.ones(()),
    "weight": torch.ones(3),
    "coefficients_NR": torch.ones(3),
    "output": "logits",
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument(name):
    names = ("pred", "x", "x_noisy", "sigma", "weight")
    arguments = dict(zip(names, inputs((2, 3, 1, 4, 4), False), strict=True))
    arguments |= {"coefficients_NR": torch.ones(2, 3)} | {name: WRONG[name]}
    with pytest.raises(ValueError, match=f"^{name} must be "):
        contrast_loss(**arguments)
