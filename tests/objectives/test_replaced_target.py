"""GFT and model guidance: the rewriting as one squared error, and the guidance of the fixed point."""

import pytest
import torch

from mclr_fast.objectives import GFT, ModelGuidance
from mclr_fast.ops import weighted_sq_error

SHAPE = (3, 1, 4, 4)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(3)]


def loss(objective, denoised, uncond, x, weight=1.7):
    """The objective through its target and its one coefficient, in plain torch."""
    target = objective.target(denoised, uncond, x)
    energy = weight * (denoised - target).square().sum((1, 2, 3))[:, None]
    return objective(energy).loss_N


@pytest.mark.parametrize("beta", [0.25, 1.0])
def test_gft_as_written(images, gradient, beta):
    """[Che+25a]: w |beta D + (1-beta) sg(U) - x|^2, values and gradients."""
    denoised, uncond, x = images
    denoised.requires_grad_()
    uncond.requires_grad_()
    found = loss(GFT(beta), denoised, uncond, x)
    expected = 1.7 * (beta * denoised + (1 - beta) * uncond.detach() - x).square().sum((1, 2, 3))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, denoised), gradient(expected, denoised))
    assert not GFT(beta).target(denoised, uncond, x).requires_grad


@pytest.mark.parametrize("w", [0.0, 0.75])
def test_model_guidance_as_written(images, gradient, w):
    """[Tan+25]: |eps_c - (eps + w sg(eps_c - eps_u))|^2 in eps = (x_t - D) / sigma, times sigma^2."""
    denoised, uncond, x = images
    denoised.requires_grad_()
    sigma, eps = 0.8, torch.randn(SHAPE, dtype=torch.float64)
    x_noisy = x + sigma * eps
    eps_cond, eps_uncond = ((x_noisy - v) / sigma for v in (denoised, uncond))
    shifted = eps + w * (eps_cond - eps_uncond).detach()
    expected = 1.7 * sigma**2 * (eps_cond - shifted).square().sum((1, 2, 3))
    found = loss(ModelGuidance(w), denoised, uncond, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, denoised), gradient(expected, denoised))
    assert not ModelGuidance(w).target(denoised, uncond, x).requires_grad


def test_model_guidance_is_gft(images, gradient):
    """With beta = 1-w their gradients differ by the factor beta."""
    denoised, uncond, x = images
    denoised.requires_grad_()
    guided, free = (
        gradient(loss(objective, denoised, uncond, x), denoised)
        for objective in (ModelGuidance(0.6), GFT(0.4))
    )
    torch.testing.assert_close(free, 0.4 * guided)


@pytest.mark.parametrize("objective", [GFT(0.5), GFT(0.8), ModelGuidance(0.5), ModelGuidance(0.2)], ids=repr)
def test_fixed_point_is_the_cfg_denoiser(objective, gradient):
    """On a 1-D mixture of two Gaussian classes, in closed form and by quadrature over p(x_t, x | c).

    At D = U + g (C - U), C = E[x|x_t, c] and U = E[x|x_t], the expected gradient of the loss is zero;
    at another guidance it is not.
    """
    sigma, spread = 0.7, 0.5
    means = torch.tensor([-1.0, 1.5], dtype=torch.float64)
    x_noisy = torch.linspace(-3, 3, 41, dtype=torch.float64)
    total = spread**2 + sigma**2
    cond = means[:, None] + spread**2 / total * (x_noisy - means[:, None])  # [class, x_t]
    posterior = torch.softmax(-((x_noisy - means[:, None]) ** 2) / (2 * total), dim=0)
    uncond = (posterior * cond).sum(dim=0)

    # x given (x_t, class 0) is Gaussian: sums over a fine grid of standard normals.
    z = torch.linspace(-8, 8, 401, dtype=torch.float64)[:, None]
    mass = torch.softmax(-(z.flatten() ** 2) / 2, dim=0)
    x = cond[0] + spread * sigma / total**0.5 * z

    def expected_gradient(guidance):
        denoised = (uncond + guidance * (cond[0] - uncond)).requires_grad_()
        target = objective.target(denoised, uncond, x)
        energy = (denoised - target).square()
        return gradient(mass @ objective(energy.reshape(-1, 1)).loss_N.view_as(energy), denoised)

    assert expected_gradient(objective.guidance).abs().max() < 1e-12
    assert expected_gradient(objective.guidance + 0.1).abs().max() > 1e-2


@pytest.mark.parametrize("objective", [GFT(0.5), ModelGuidance(0.5)], ids=repr)
def test_the_fused_error_serves(images, objective):
    """`weighted_sq_error` with the target in place of x, one column."""
    denoised, uncond, x = (image.float() for image in images)
    weight = torch.full((3,), 1.7)
    target = objective.target(denoised, uncond, x)
    energy = weighted_sq_error(denoised[:, None], target, x, torch.ones(3), weight, output="denoised")
    torch.testing.assert_close(objective(energy).loss_N, loss(objective, denoised, uncond, x))
    coefficients = objective.coefficients(1)
    assert coefficients.shape == (1,) and coefficients.dtype == torch.float32
    torch.testing.assert_close(coefficients * energy[:, 0], objective(energy).loss_N)


@pytest.mark.parametrize("objective", [GFT(0.5), ModelGuidance(0.5)], ids=repr)
def test_has_no_negatives(objective):
    with pytest.raises(ValueError, match="has no negatives: R must be 1, not 2"):
        objective(torch.ones(3, 2))
