"""p(c|x_t) from a classifier: against a mixture's exact posterior, bounded, calibrated, repeatable."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mclr_fast.models.noisy_classifier import (
    NUM_BINS,
    NoisyClassifier,
    best_temperatures,
    expected_calibration_error,
    train_noisy_classifier,
)
from mclr_fast.objectives import NoiseLevel
from mclr_fast.theory.gaussian_mixture import GaussianMixture

MIXTURE = GaussianMixture.isotropic(
    [0.3, 0.2, 0.5], [[-0.6, 0.0], [0.5, 0.4], [0.2, -0.5]], [0.25, 0.3, 0.2], [0, 1, 2]
)
NOISE = NoiseLevel(P_mean=-1.0, P_std=1.0)


def train(num_steps=200, seed=0):
    """A classifier of the mixture's samples, as images of two channels and one pixel."""
    x, labels = MIXTURE.sample(4000, torch.Generator().manual_seed(1))
    images = x.float().view(-1, 2, 1, 1)
    return train_noisy_classifier(
        lambda index: images[index], labels.numpy(), 3, NOISE, num_steps=num_steps, seed=seed
    )


@pytest.fixture(scope="module")
def trained():
    return train()


def test_it_is_trained_calibrated_and_judged_on_images_apart():
    asked = []

    def images(index):
        asked.append(set(index.tolist()))
        return torch.zeros(len(index), 2, 1, 1)

    train_noisy_classifier(images, np.arange(400) % 3, 3, NOISE, num_steps=5)
    training = set().union(*asked[:-16])
    calibration, judgement = set().union(*asked[-16:-8]), set().union(*asked[-8:])
    assert len(calibration) == len(judgement) == 20
    assert not (training & calibration or training & judgement or calibration & judgement)


def noisy_points(num_points, seed=2):
    generator = torch.Generator().manual_seed(seed)
    x, labels = MIXTURE.sample(num_points, generator)
    sigma = NOISE.sigma(torch.randn(num_points, generator=generator))
    return x.float() + sigma[:, None] * torch.randn(num_points, 2, generator=generator), sigma, labels


def test_ratio_is_close_to_the_exact_one(trained):
    net, _ = trained
    x, sigma, _ = noisy_points(4000)
    labels = torch.arange(3).expand(len(x), 3)
    ratio = net.ratio(x.view(-1, 2, 1, 1), sigma, labels)
    exact = MIXTURE.log_ratio(x[:, None], sigma[:, None], labels).exp()
    assert (ratio - exact).abs().mean() < 0.08
    assert (exact - 1).abs().mean() > 0.5  # ratio 1 everywhere would be this far off
    assert (ratio <= 1 / net.class_probs * (1 + 1e-5)).all()
    torch.testing.assert_close((ratio * net.class_probs).sum(dim=1), torch.ones(len(x)))


def test_columns_with_images_of_their_own(trained):
    net, _ = trained
    x, sigma, _ = noisy_points(12)
    x, sigma = x.view(4, 3, 2, 1, 1), sigma[:4]
    labels = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 1], [0, 0, 2]])
    expected = [net.ratio(x[:, k], sigma, labels[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(net.ratio(x, sigma, labels), torch.cat(expected, dim=1))


def test_calibrated_on_images_it_has_not_seen(trained):
    net, quality = trained
    x, sigma, labels = noisy_points(8000, seed=3)
    with torch.no_grad():
        probs = net(x.view(-1, 2, 1, 1), sigma).softmax(dim=1)
    assert expected_calibration_error(probs, labels) < 0.03
    exact = MIXTURE.log_posterior(x, sigma)
    best = F.nll_loss(exact, labels).item()
    assert best < F.nll_loss(probs.log(), labels).item() < best + 0.02
    assert quality["ece_after"] < 0.06
    assert quality["heldout_images"] == 200


def test_the_seed_decides_every_weight(trained):
    first, second = (train(num_steps=20)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(num_steps=20, seed=1)[0].state_dict()
    assert not torch.equal(first["head.2.weight"], other["head.2.weight"])


def test_temperatures_undo_overconfidence():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 5, generator=generator)
    target = torch.distributions.Categorical(logits=logits).probs.multinomial(1, generator=generator)[:, 0]
    bins = torch.arange(40_000) % 4
    scale = torch.tensor([0.5, 1.0, 2.0, 4.0])[bins]
    temperature = best_temperatures(logits * scale[:, None], bins, target)
    torch.testing.assert_close(temperature[:4], torch.tensor([0.5, 1.0, 2.0, 4.0]), rtol=0.06, atol=0)
    assert (temperature[4:] == 1).all()


def test_calibration_error_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.38, 0.62], [0.3, 0.7]])
    target = torch.tensor([0, 1, 1, 1])
    # bins of 1/15: {0.9, 0.9} is right half the time, {0.62} and {0.7} always
    assert expected_calibration_error(probs, target) == pytest.approx((2 * 0.4 + 0.38 + 0.3) / 4, abs=1e-6)


def test_bins_are_equally_probable():
    net = NoisyClassifier((1, 8, 8), [0.5, 0.5], NOISE.P_mean, NOISE.P_std)
    sigma = NOISE.sigma(torch.randn(8000))
    counts = torch.bincount(net.bins(sigma), minlength=NUM_BINS)
    assert (counts - 1000).abs().max() < 150
    assert net.bins(torch.tensor([1e-9, 1e9])).tolist() == [0, NUM_BINS - 1]


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 64, 64), (4, 9, 7), (2, 1, 1)])
def test_any_image_shape_has_logits(shape):
    net = NoisyClassifier(shape, [0.25] * 4, NOISE.P_mean, NOISE.P_std).eval()
    assert net(torch.randn(3, *shape), torch.ones(3)).shape == (3, 4)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="5 images are too few"):
        train_noisy_classifier(
            lambda index: torch.zeros(len(index), 1, 4, 4), np.zeros(5, np.int64), 1, NOISE
        )
