import pytest
import torch

from mclr_fast import ops
from mclr_fast.ops import contrast_loss, weighted_sq_error


def inputs(shape, per_column, layout=lambda x: x):
    num_images, num_columns, *image = shape
    lead = (num_images, num_columns) if per_column else (num_images,)
    x, x_noisy = torch.randn(2, *lead, *image)
    sigma, weight = torch.rand(2, num_images) + 0.1
    pred = layout(torch.randn(num_images * num_columns, *image)).unflatten(0, shape[:2])
    return pred, x, x_noisy, sigma, weight


SHAPES = [
    (0, 4, 1, 2, 2),
    (2, 3, 1, 0, 2),
    (1, 1, 1, 1, 1),
    (3, 4, 3, 5, 7),
    (1, 3, 17, 3, 3),
    (2, 2, 8, 40, 20),
    (1, 2, 3, 49, 61),  # more than a chunk of the kernel
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("output", ["network", "denoised", "network with scalings"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_those_of_the_energies(layout, shape, per_column, output, dtype):
    pred, x, x_noisy, sigma, weight = inputs(shape, per_column, layout)
    given = {"sigma_data": 0.6, "output": output}
    if output == "network with scalings":
        sigma, given = None, dict(zip(("c_skip", "c_out"), torch.randn(2, shape[0]), strict=True))
    rest = x, x_noisy, sigma, weight
    coefficients = torch.randn(shape[:2])
    one, two = (pred.to(dtype).requires_grad_() for _ in range(2))
    loss, found = contrast_loss(one, *rest, coefficients, **given)
    energies = weighted_sq_error(two, *rest, **given)
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


@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_gradient_of_a_scaled_loss(implementation, layout, scale):
    pred, *rest = inputs((2, 3, 3, 5, 7), False, layout)
    loss, _ = contrast_loss(pred.requires_grad_(), *rest, torch.randn(2, 3))
    (once,) = torch.autograd.grad(loss, pred, retain_graph=True)
    once = once.clone()
    (scaled,) = torch.autograd.grad(loss * scale, pred, retain_graph=True)
    (again,) = torch.autograd.grad(loss, pred)
    assert torch.equal(scaled, once * scale) and torch.equal(again, once)
    if implementation == "fused":
        assert scaled.stride() == pred.stride()


def test_accumulates_into_a_leaf():
    pred, *rest = inputs((2, 3, 1, 4, 4), False)
    pred.requires_grad_()
    for _ in range(2):
        loss, _ = contrast_loss(pred, *rest, torch.ones(2, 3))
        (once,) = torch.autograd.grad(loss, pred, retain_graph=True)
        loss.backward()
    assert torch.equal(pred.grad, 2 * once)


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_gradients_are_those_of_their_parts(implementation, dtype):
    """Past 64 MB they are stored around the caches."""
    pred, *rest = inputs((2, 9, 1, 1024 if dtype == torch.float32 else 2048, 1024), False)
    pred, coefficients = pred.to(dtype).requires_grad_(), torch.randn(2, 9)
    loss, energies = contrast_loss(pred, *rest, coefficients)
    (whole,) = torch.autograd.grad(loss, pred)
    for i in range(2):
        row = [v[i : i + 1] for v in (*rest, coefficients)]
        loss, energy = contrast_loss(pred[i : i + 1], *row)
        (part,) = torch.autograd.grad(loss, pred)
        assert torch.equal(part[i], whole[i]) and torch.equal(energy[0], energies[i])


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_registration_and_compile(implementation):
    pred, *rest = inputs((2, 3, 2, 4, 4), False, lambda x: x.contiguous(memory_format=torch.channels_last))
    coefficients = torch.randn(2, 3)
    pred.requires_grad_()
    op = torch.ops.mclr_fast.contrast_loss.default
    torch.library.opcheck(op, (pred, *rest, coefficients, 0.5, "network", None, None))
    x, x_noisy, sigma, weight = rest
    scalings = (0.5, "network", sigma, sigma)
    torch.library.opcheck(op, (pred, x, x_noisy, None, weight, coefficients, *scalings))
    compiled = torch.compile(ops.contrast_loss, fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(op(pred, *rest, coefficients)[0] * 3, pred)[0] for op in (compiled, contrast_loss)
    ]
    assert torch.equal(*grads)


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
