"""Averages made after training: profiles, inner products and coefficients against EDM2's recorded ones."""

import math

import numpy as np
import pytest
import torch

from mclr_fast.training.averages import power_function_beta
from mclr_fast.training.posthoc import posthoc_coefficients, profile_inner_product, response_profile


@pytest.fixture(scope="module")
def z(golden):
    return golden("edm2_schedule")


def test_golden_response_profile(z):
    response = response_profile(np.arange(41), z["ema/response_ofs"], z["ema/response_std"])
    np.testing.assert_allclose(response, z["ema/response"], rtol=1e-9)


def test_the_betas_product_is_the_profile():
    """Unrolled, the recursion weighs step i by (1 - beta_i) times the later betas: eq. 121."""
    t = np.arange(1, 2001)
    beta = power_function_beta(0.1, t, 1)
    later = np.append(np.cumprod(beta[:0:-1])[::-1], 1)
    weights = (1 - beta) * later
    np.testing.assert_allclose(weights[100:], response_profile(t, [2000], [0.1])[100:, 0], rtol=0.1)
    mean = weights @ t
    std = math.sqrt(weights @ (t - mean) ** 2)
    assert std / 2000 == pytest.approx(0.1, rel=1e-2)


def test_golden_inner_products(z):
    t_a, std_a, t_b, std_b = (z[f"corr/{s}"] for s in ("a_ofs", "a_std", "b_ofs", "b_std"))
    actual = profile_inner_product(t_a[:, None], std_a[:, None], t_b, std_b)
    np.testing.assert_allclose(actual, z["corr/value"], rtol=1e-9)


@pytest.mark.parametrize("problem", ["posthoc", "posthoc_big"])
def test_golden_posthoc_coefficients(z, problem):
    names = ("in_nimg", "in_std", "out_nimg", "out_std")
    coefficients = posthoc_coefficients(*(z[f"{problem}/{name}"] for name in names))
    np.testing.assert_allclose(coefficients, z[f"{problem}/coefs"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(coefficients.sum(axis=0), 1, rtol=1e-12)


def test_a_kept_average_is_its_own_synthesis():
    times, stds = [1e6, 1e6, 2e6, 2e6], [0.05, 0.1, 0.05, 0.1]
    coefficients = posthoc_coefficients(times, stds, times, stds)
    np.testing.assert_allclose(coefficients, np.eye(4), atol=1e-9)


def test_golden_posthoc_weights(z):
    coefficients = torch.from_numpy(z["posthoc/coefs"]).float()
    snapshots = torch.from_numpy(z["snap/weight"]).float()
    actual = torch.einsum("io,ijk->ojk", coefficients, snapshots).half().numpy()
    ulps = np.abs(actual.view(np.int16).astype(int) - z["posthoc/weight"].view(np.int16))
    assert ulps.max() <= 1


def test_a_snapshot_from_before_training_is_refused():
    with pytest.raises(ValueError, match="before training"):
        posthoc_coefficients([0, 1], [0.1, 0.1], 1, 0.05)
