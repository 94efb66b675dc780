import pytest
import torch

from mclr_fast.ops.reference.philox import random_normal
from mclr_fast.ops.triton_kernels import noisy_input

SIGMA_DATA = 0.5


def formula_of(eps, dtype, ones=True):
    """eps: [N,C,H,W]. The results with eps known; without c_in it is EDM's."""

    def formula(x, sigma, c_in=None):
        columns = (slice(None),) + (None,) * (x.ndim - 4)
        level = sigma.view(-1, *[1] * (x.ndim - 1))
        x_noisy = x + level * eps.to(x)[columns]
        if c_in is None:
            scaled = x_noisy / (level**2 + SIGMA_DATA**2).sqrt()
        else:
            scaled = c_in.view(level.shape) * x_noisy
        scaled = scaled.flatten(0, x.ndim - 4)
        net_input = torch.cat([scaled, torch.ones_like(scaled[:, :1])], dim=1) if ones else scaled
        return x_noisy, net_input if x.dtype == torch.float64 else net_input.to(dtype)

    return formula


SHAPES = [(0, 3, 2, 2), (1, 1, 1, 1), (2, 3, 7, 5), (2, 4, 4, 6), (2, 3, 3, 18, 18), (2, 2, 4, 5, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ones", [True, False])
def test_c_in_of_another_denoiser(hold, randn, dtype, shape, ones):
    x, sigma, eps, c_in = randn(*shape), randn(shape[0]).exp(), randn(shape[0], *shape[-3:]), randn(shape[0])

    def forward(x, sigma, c_in):
        return noisy_input.forward(x, sigma, eps, 0, 0, None, SIGMA_DATA, dtype, c_in, ones)

    (x_noisy, net_input), _ = hold(forward, None, formula_of(eps, dtype, ones), x, sigma, c_in)
    assert x_noisy.is_contiguous() and net_input.is_contiguous(memory_format=torch.channels_last)
    assert not ones or torch.equal(net_input[:, -1], torch.ones_like(net_input[:, -1]))


@pytest.mark.parametrize("shape", SHAPES)
def test_given_eps(hold, randn, dtype, shape):
    x, sigma, eps = randn(*shape), randn(shape[0]).exp(), randn(shape[0], *shape[-3:])

    def forward(x, sigma):
        return noisy_input.forward(x, sigma, eps, 0, 0, None, SIGMA_DATA, dtype)

    (x_noisy, net_input), _ = hold(forward, None, formula_of(eps, dtype), x, sigma)
    assert x_noisy.is_contiguous() and net_input.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(net_input[:, -1], torch.ones_like(net_input[:, -1]))


def test_layouts(hold, randn, layout):
    x, sigma, eps = layout(randn(2, 3, 4, 4)), randn(2).exp(), layout(randn(2, 3, 4, 4))

    def forward(x, sigma):
        return noisy_input.forward(x, sigma, eps, 0, 0, None, SIGMA_DATA, torch.float32)

    hold(forward, None, formula_of(eps, torch.float32), x, sigma)


@pytest.mark.parametrize(
    ("shape", "seed"),
    [
        ((2, 3, 32, 32), 0),
        ((2, 4, 16, 16), -7),
        ((2, 3, 7, 5), 2**40 + 3),
        ((2, 1, 1, 1), 1),
        ((2, 3, 3, 8, 8), 2**31),
    ],
)
def test_numbers_are_philox(device, shape, seed):
    position = torch.tensor([5, 2**35 + 2**31 + 9], device=device)
    x, sigma = torch.zeros(shape, device=device), torch.ones(2, device=device)
    x_noisy, _ = noisy_input.forward(x, sigma, None, seed, 3, position, SIGMA_DATA, torch.float32)
    eps = random_normal(seed, 3, position, x.shape[-3:].numel())
    eps = eps.view(2, *[1] * (x.ndim - 4), *shape[-3:])
    assert bool(((x_noisy - eps).abs() <= 1e-6 * eps.abs().clamp(min=1)).all())


def test_drawn_and_given_eps_agree(randn, device):
    x, sigma, position = randn(2, 3, 4, 4), randn(2).exp(), torch.tensor([3, 4], device=device)
    eps = random_normal(0, 1, position, 48).view_as(x)
    drawn = noisy_input.forward(x, sigma, None, 0, 1, position, SIGMA_DATA, torch.float32)
    given = noisy_input.forward(x, sigma, eps, 0, 1, None, SIGMA_DATA, torch.float32)
    for a, b in zip(drawn, given, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
