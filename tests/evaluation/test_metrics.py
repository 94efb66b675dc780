"""Metrics against golden values, torch-fidelity and brute force."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mclr_fast.evaluation import (
    bootstrap_frechet_difference,
    feature_statistics,
    frechet_distance,
    inception_score,
    precision_recall,
)
from mclr_fast.evaluation.metrics import manifold
from mclr_fast.evaluation.metrics.manifold import neighbour_radii, on_manifold, openai_distances


@pytest.fixture(scope="module")
def z(golden):
    return golden("metrics")


def features(n, dim, seed, spread=1.0):
    return spread * np.random.default_rng(seed).standard_normal((n, dim))


# --- Frechet distance -----------------------------------------------------------------------------


def test_golden_statistics(z):
    for name in ("gen", "ref"):
        mu, sigma = feature_statistics(z[f"fd/features_{name}"])
        np.testing.assert_allclose(mu, z[f"fd/mu_{name}"], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(sigma, z[f"fd/sigma_{name}"], rtol=1e-8, atol=1e-12)


def test_golden_frechet_distance(z):
    names = ("mu_gen", "sigma_gen", "mu_ref", "sigma_ref")
    value = frechet_distance(*(z[f"fd/{name}"] for name in names))
    assert value == pytest.approx(float(z["fd/value"]), rel=1e-8)


def test_frechet_distance_agrees_with_torch_fidelity():
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    mixing = np.random.default_rng(2).standard_normal((24, 24)) * np.logspace(0, -2, 24)
    a, b = features(300, 24, seed=0) @ mixing, features(200, 24, seed=1, spread=1.3) + 0.2
    statistics = [[s.numpy() for s in feature_statistics(f)] for f in (a, b)]
    theirs = fid_statistics_to_metric(
        *({"mu": mu, "sigma": sigma} for mu, sigma in statistics), verbose=False
    )
    ours = frechet_distance(*statistics[0], *statistics[1])
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-10)


def test_frechet_distance_with_singular_covariances():
    """Fewer samples than dimensions; a shift along no sample's direction adds its square alone."""
    x = features(10, 30, seed=0)
    x[:, 0] = 0
    mu, sigma = feature_statistics(x)
    shift = 3.0 * torch.eye(30, dtype=torch.float64)[0]
    assert frechet_distance(mu, sigma, mu, sigma) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(mu, sigma, mu + shift, 4 * sigma) == pytest.approx(
        9 + sigma.trace().item(), rel=1e-12
    )


# --- Inception score, precision and recall --------------------------------------------------------


@pytest.mark.parametrize("splits", [1, 10])
def test_golden_inception_score(z, splits):
    mean, std = inception_score(z["is/probs"], splits)
    assert mean == pytest.approx(float(z[f"is/mean_{splits}"]), rel=1e-9)
    assert std == pytest.approx(float(z[f"is/std_{splits}"]), rel=1e-9, abs=1e-12)


def test_inception_score_of_certain_predictions_is_the_number_of_classes():
    mean, std = inception_score(torch.eye(7).repeat(4, 1), 2)
    assert (mean, std) == pytest.approx((7, 0))


@pytest.mark.parametrize("chunk_elements", [2**25, 100, 1])
def test_golden_precision_recall(z, monkeypatch, chunk_elements):
    monkeypatch.setattr(sys.modules[on_manifold.__module__], "_CHUNK_ELEMENTS", chunk_elements)
    k = int(z["pr/k"])
    real, fake = (torch.from_numpy(z[f"pr/{name}"]).double() for name in ("real", "fake"))
    radii_real, radii_fake = neighbour_radii(real, k), neighbour_radii(fake, k)
    np.testing.assert_allclose(radii_real, z["pr/radii_real"], rtol=1e-9)
    np.testing.assert_allclose(radii_fake, z["pr/radii_fake"], rtol=1e-9)
    np.testing.assert_array_equal(on_manifold(fake, real, radii_real), z["pr/fake_in_real"])
    np.testing.assert_array_equal(on_manifold(real, fake, radii_fake), z["pr/real_in_fake"])
    precision, recall = precision_recall(z["pr/real"], z["pr/fake"], k)
    assert (precision, recall) == (float(z["pr/precision"]), float(z["pr/recall"]))


def test_radii_far_from_the_origin():
    points = features(60, 40, seed=0)
    far = torch.from_numpy(points + 1e4)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_allclose(neighbour_radii(far, 3), np.sort(distances)[:, 3], rtol=1e-9)


def float16_distances(rows, columns):
    """|u|^2 - 2 u.v + |v|^2, each operation in numpy's float16."""
    rows, columns = rows.astype(np.float16), columns.astype(np.float16)
    norms, others = (np.square(x).astype(np.float64).sum(1).astype(np.float16) for x in (rows, columns))
    products = (rows.astype(np.float64) @ columns.astype(np.float64).T).astype(np.float16)
    return np.maximum(norms[:, None] - np.float16(2) * products + others, np.float16(0)).astype(np.float32)


def sixteenths(n, seed):
    """Features whose squares and products are summed exactly in float32, in any order."""
    return np.random.default_rng(seed).integers(0, 80, (n, 64)).astype(np.float32) / 16


def distances(rows, columns):
    return torch.cat(list(openai_distances(torch.from_numpy(rows), torch.from_numpy(columns)))).numpy()


@pytest.mark.parametrize("chunk_elements", [2**25, 100])
def test_openais_distances_are_rounded_to_float16(monkeypatch, chunk_elements):
    monkeypatch.setattr(manifold, "_CHUNK_ELEMENTS", chunk_elements)
    a, b = sixteenths(50, 0), sixteenths(40, 1)
    expected = float16_distances(a, b)
    np.testing.assert_array_equal(distances(a, b), expected)
    exact = np.square(a[:, None] - b).sum(-1)
    assert 0.1 < np.abs(expected - exact).max() < 2  # a grid of 0.5, of distances of some 250
    radii = np.sort(float16_distances(a, a), axis=1)[:, 3], np.sort(float16_distances(b, b), axis=1)[:, 3]
    precision = (expected <= radii[0][:, None]).any(axis=0).mean()  # the largest radius counts too
    recall = (expected <= radii[1]).any(axis=1).mean()
    assert precision_recall(a, b, 3, openai_distances) == pytest.approx((precision, recall))


def test_openais_distances_that_overflow_are_float32_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr(manifold, "_OPENAI_BLOCK", 10)
    a, b = sixteenths(20, 0), sixteenths(30, 1)
    a[13] *= 32  # its squared norm is some 400,000
    found, narrow = distances(a, b), float16_distances(np.delete(a, 13, axis=0), b)
    np.testing.assert_array_equal(found[:10], narrow[:10])
    exact = np.square(a[:, None].astype(np.float64) - b).sum(-1)
    np.testing.assert_allclose(found[10:], exact[10:], rtol=1e-6)
    assert np.abs(narrow[10:] - np.delete(exact, 13, axis=0)[10:]).max() > 0.1


def test_openais_distances_are_narrow_where_only_a_bound_says_otherwise(monkeypatch):
    """Squared norms of 40,000 at right angles: all is finite."""
    a, b = np.zeros((4, 64), np.float32), np.zeros((5, 64), np.float32)
    a[:, 0], b[:, 1] = 150.03, 199.97
    np.testing.assert_array_equal(distances(a, b), float16_distances(a, b))
    assert np.isfinite(distances(a, b)).all()


# --- Paired bootstrap -----------------------------------------------------------------------------


def test_bootstrap_of_identical_sets_is_zero(z):
    x = z["fd/features_gen"]
    reference = feature_statistics(z["fd/features_ref"])
    result = bootstrap_frechet_difference(x, x, *reference, num_resamples=20)
    assert result == (0, 0, 0)


def test_bootstrap_tells_a_worse_set_and_its_interval_holds_the_difference():
    reference = feature_statistics(features(2000, 8, seed=0))
    good = features(500, 8, seed=1)
    worse = 1.3 * good + 0.2
    difference, low, high = bootstrap_frechet_difference(worse, good, *reference, num_resamples=200)
    assert 0 < low < difference < high
    swapped = bootstrap_frechet_difference(good, worse, *reference, num_resamples=200)
    assert swapped == pytest.approx((-difference, -high, -low))


def test_bootstrap_does_not_tell_sets_apart_that_only_differ_by_chance():
    reference = feature_statistics(features(2000, 8, seed=0))
    a, b = features(500, 8, seed=1), features(500, 8, seed=2)
    _, low, high = bootstrap_frechet_difference(a, b, *reference, num_resamples=200)
    assert low < 0 < high


def test_bootstrap_depends_on_its_seed_alone():
    reference = feature_statistics(features(200, 4, seed=0))
    a, b = features(50, 4, seed=1), features(50, 4, seed=2)
    results = [
        bootstrap_frechet_difference(a, b, *reference, num_resamples=20, seed=seed) for seed in (0, 0, 1)
    ]
    assert results[0] == results[1] != results[2]


# --- Use ------------------------------------------------------------------------------------------


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="have no covariance"):
        feature_statistics(np.ones((1, 4)))
    with pytest.raises(ValueError, match="splits=5"):
        inception_score(np.ones((4, 2)) / 2, 5)
    with pytest.raises(ValueError, match="k=4"):
        precision_recall(np.ones((4, 2)), np.ones((4, 2)), 4)
    with pytest.raises(ValueError, match="must pair up row by row"):
        bootstrap_frechet_difference(np.ones((4, 2)), np.ones((5, 2)), [0, 0], np.eye(2))


def test_import_leaves_torch_fidelity_alone():
    code = "import sys, mclr_fast.evaluation; sys.exit('torch_fidelity' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
