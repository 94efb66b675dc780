"""The labelled mixture's closed forms, against numerical integrals, autograd and samples."""

import math

import pytest
import torch

from mclr_fast.theory.gaussian_mixture import GaussianMixture

CLASSES = [0, 1, 0]


@pytest.fixture(scope="module")
def line():
    return GaussianMixture.isotropic([0.3, 0.2, 0.5], [[-1.0], [0.5], [1.5]], [0.5, 0.3, 0.8], CLASSES)


@pytest.fixture(scope="module")
def plane():
    covariances = [[[1.0, 0.2], [0.2, 0.5]], [[0.3, 0.0], [0.0, 0.2]], [[0.5, -0.1], [-0.1, 0.4]]]
    return GaussianMixture([0.2, 0.3, 0.5], [[0.0, 0.0], [1.0, 2.0], [-1.0, 1.0]], covariances, CLASSES)


@pytest.fixture
def points():
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(40, 2, generator=generator, dtype=torch.float64)
    sigma = 2 * torch.rand(40, generator=generator, dtype=torch.float64)
    return x, sigma, torch.arange(40) % 2


@pytest.mark.parametrize("c", [None, 0, 1])
def test_noisy_density_and_denoiser_are_integrals_over_clean_data(line, c):
    """p_t(x|c) = int p(x_0|c) N(x; x_0, sigma^2) dx_0, and D the mean of x_0 under that integrand."""
    sigma, x = 0.7, torch.tensor([[-2.0], [0.1], [1.3]], dtype=torch.float64)
    clean = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = line.log_prob(clean[:, None], c=c).exp()
    kernel = (-0.5 * ((x - clean) / sigma) ** 2).exp() / (sigma * math.sqrt(2 * math.pi))
    mass = (density * kernel).sum(1) * 16 / 4000
    mean = (density * kernel * clean).sum(1) * 16 / 4000 / mass
    torch.testing.assert_close(line.log_prob(x, sigma, c).exp(), mass, rtol=1e-9, atol=0)
    torch.testing.assert_close(line.denoise(x, sigma, c)[:, 0], mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("conditional", [True, False])
def test_the_score_is_the_gradient(plane, points, conditional):
    x, sigma, labels = points
    c = labels if conditional else None
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(plane.log_prob(x, sigma, c).sum(), x)
    torch.testing.assert_close(plane.score(x, sigma, c), gradient, rtol=1e-10, atol=1e-12)


def test_bayes_rule(plane, points):
    """p(c|x_t) p_t(x_t) = p(c) p_t(x_t|c), and the ratio is the posterior over the prior."""
    x, sigma, labels = points
    posterior = plane.log_posterior(x, sigma)
    for c in (0, 1):
        joint = plane.class_probs[c].log() + plane.log_prob(x, sigma, c)
        torch.testing.assert_close(posterior[:, c] + plane.log_prob(x, sigma), joint)
    ratio = plane.log_ratio(x, sigma, labels)
    torch.testing.assert_close(ratio, (posterior - plane.class_probs.log())[torch.arange(40), labels])
    assert bool((ratio <= -plane.class_probs[labels].log() + 1e-12).all())


def test_far_away_nothing_overflows(plane):
    x = torch.full((1, 2), 1e4, dtype=torch.float64)
    for value in (plane.log_prob(x), plane.log_ratio(x, 0.1, 1), plane.score(x), plane.log_posterior(x)):
        assert bool(torch.isfinite(value).all())


def test_labels_and_points_broadcast(plane, points):
    """x [N,1,D] with labels [N,K]: a row's points under each of its labels, as training asks."""
    x, sigma, labels = points
    many = torch.stack([labels, 1 - labels, labels], dim=1)
    ratio = plane.log_ratio(x[:, None], sigma[:, None], many)
    assert ratio.shape == (40, 3)
    torch.testing.assert_close(ratio[:, 1], plane.log_ratio(x, sigma, 1 - labels))


def test_results_have_the_points_dtype(plane, points):
    x, sigma, labels = points
    ratio = plane.log_ratio(x.float(), sigma.float(), labels)
    assert ratio.dtype == torch.float32 and plane.denoise(x.float(), 1.0).dtype == torch.float32
    torch.testing.assert_close(ratio.double(), plane.log_ratio(x, sigma, labels), rtol=1e-4, atol=1e-5)


def test_samples_are_of_the_mixture(plane):
    generator = torch.Generator().manual_seed(1)
    x, c = plane.sample(100_000, generator)
    assert x.shape == (100_000, 2) and c.dtype == torch.int64
    torch.testing.assert_close(c.bincount() / 1e5, plane.class_probs.float(), atol=5e-3, rtol=0)
    one = x[c == 1]  # a single component
    torch.testing.assert_close(one.mean(0), plane.means[1], atol=0.02, rtol=0)
    torch.testing.assert_close(one.T.cov(), plane.covariances[1], atol=0.02, rtol=0)
    zero = plane.denoise(torch.zeros(1, 2, dtype=torch.float64), 1e4, 0)[
        0
    ]  # noise alone tells the class mean
    torch.testing.assert_close(x[c == 0].mean(0), zero, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.6]}, "sum to 1"),
        ({"weights": [1.2, -0.2]}, "positive"),
        ({"weights": [[0.5, 0.5]]}, "weights does not fit"),
        ({"means": [0.0, 1.0]}, "means does not fit"),
        ({"covariances": [[1.0], [1.0]]}, "covariances does not fit"),
        ({"covariances": [[[1.0]], [[-1.0]]]}, "positive definite"),
        ({"classes": [0, 2]}, r"0 \.\. M-1"),
    ],
)
def test_what_is_no_mixture_is_said(change, message):
    good = {"weights": [0.5, 0.5], "means": [[0.0], [1.0]], "covariances": [[[1.0]]] * 2, "classes": [0, 1]}
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**{**good, **change})


def test_points_of_another_dimension_are_refused(plane):
    with pytest.raises(ValueError, match=r"\[\.\.\., 2\]"):
        plane.score(torch.zeros(3, 1))
