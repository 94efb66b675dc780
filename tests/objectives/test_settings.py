"""Settings out of range and tables that do not fit: one clear line each."""

import re

import pytest
import torch

from mclr_fast.objectives import CCA, CCDPO, DDO, GFT, KLMCLR, MCLR, ModelGuidance, PlusMinus, WeightedMCLR

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "setting", "allowed", "wrong"),
    [
        (MCLR, "dsm_weight", "at least 0", (-0.1, NAN, INF)),
        (KLMCLR, "eta", "at least 0", (-1.0, NAN, INF)),
        (WeightedMCLR, "eta", "at least 0", (-1.0, NAN)),
        (PlusMinus, "eta", "at least 0", (-1.0, NAN)),
        (CCDPO, "beta", "above 0", (0.0, -1.0, NAN, INF)),
        (lambda beta: CCA(beta, 1.0), "beta", "above 0", (0.0, -1.0)),
        (lambda lambda_: CCA(1.0, lambda_), "lambda_", "above 0", (0.0, -1.0)),
        (lambda beta: DDO(beta, 1.0), "beta", "above 0", (0.0, -1.0)),
        (lambda alpha: DDO(1.0, alpha), "alpha", "above 0", (0.0, -1.0)),
        (GFT, "beta", "above 0 and at most 1", (0.0, 1.01, -1.0, NAN)),
        (ModelGuidance, "w", "at least 0 and below 1", (-0.1, 1.0, NAN)),
    ],
)
def test_settings_out_of_range_are_refused(make, setting, allowed, wrong):
    make(0.5)
    for value in wrong:
        with pytest.raises(ValueError, match=f": {setting} must be {allowed}, not {re.escape(repr(value))}"):
            make(value)


@pytest.mark.parametrize("objective", [CCDPO(1.0), CCA(1.0, 1.0), DDO(1.0, 1.0)], ids=repr)
def test_a_reference_must_be_there_and_fit(objective):
    energy = torch.ones(4, 3)
    with pytest.raises(
        ValueError, match=r"pass reference_NR, its energies on the same evaluations, \[4, 3\]"
    ):
        objective(energy)
    with pytest.raises(ValueError, match=r"reference_NR is \[4, 2\], but energy_NR is \[4, 3\]"):
        objective(energy, energy[:, :2])


@pytest.mark.parametrize("objective", [CCDPO(1.0), CCA(1.0, 1.0), DDO(1.0, 1.0)], ids=repr)
def test_no_gradient_flows_into_the_reference(objective):
    energy, reference = torch.ones(4, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    objective(energy, reference).loss_N.sum().backward()
    assert energy.grad is not None and reference.grad is None


@pytest.mark.parametrize(
    ("objective", "num_columns"),
    [
        (MCLR(), 1),
        (CCDPO(1.0), 1),
        (CCA(1.0, 1.0), 1),
        (DDO(1.0, 1.0), 1),
        (KLMCLR(1.0), 2),
        (WeightedMCLR(1.0), 1),
        (PlusMinus(1.0), 1),
    ],
    ids=repr,
)
def test_a_row_without_negatives_is_refused(objective, num_columns):
    message = rf"{type(objective).__name__} needs at least 1 negative a row; R = {num_columns} leaves none"
    energy = torch.ones(4, num_columns)
    with pytest.raises(ValueError, match=message):
        objective(energy, energy, ratio_NK=energy[:, 1:])
