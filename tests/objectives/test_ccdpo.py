"""CC-DPO: the formula row by row, its limits, and why its rows stay together."""

import math

import pytest
import torch

from mclr_fast.objectives import CCDPO, MCLR


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_formula(tables, assert_rows, beta):
    """Eq. 156: -log sigmoid(beta (-(e_0 - r_0) + (e_k - r_k))), averaged over k."""
    energy, reference, _ = tables
    rows = []
    for e, r in zip(energy.tolist(), reference.tolist(), strict=True):
        margins = [beta * (-(e[0] - r[0]) + (e[k] - r[k])) for k in range(1, len(e))]
        rows.append(sum(math.log1p(math.exp(-m)) for m in margins) / len(margins))
    output = CCDPO(beta)(energy, reference)
    assert_rows(output, rows)
    gap = energy - reference
    torch.testing.assert_close(output.terms["margin"], beta * (gap[:, 1:].mean(1) - gap[:, 0]))


def test_at_the_reference_the_gradient_is_half_beta_times_form_ii(tables, gradient):
    """With p = p_ref every sigmoid is 1/2: beta/2 (+1, -1/K, ...), MCLR's coefficients times beta/2."""
    energy, _, _ = tables
    beta = 0.7
    found = gradient(CCDPO(beta)(energy, energy).loss_N, energy)
    coefficients = MCLR(form=2).coefficients(energy.shape[1]).double()
    torch.testing.assert_close(found, (beta / 2 * coefficients).expand_as(found))


def test_small_beta_gives_the_gradient_of_form_ii(tables, gradient):
    """To first order in beta, wherever the policy stands."""
    energy, reference, _ = tables
    coefficients = MCLR(form=2).coefficients(energy.shape[1]).double()
    errors = []
    for beta in (1e-3, 1e-4):
        found = gradient(CCDPO(beta)(energy, reference).loss_N, energy) / (beta / 2)
        errors.append((found - coefficients).abs().max().item())
    assert errors[0] < 1e-2 and errors[1] < errors[0] / 9.9


def test_large_margins_stay_finite(gradient):
    energy = torch.tensor([[1e5, -1e5], [-1e5, 1e5]], requires_grad=True)
    loss_N = CCDPO(1.0)(energy, torch.zeros(2, 2)).loss_N
    assert loss_N.tolist() == [2e5, 0.0]
    assert gradient(loss_N, energy).tolist() == [[1.0, -1.0], [0.0, 0.0]]


def test_rows_stay_together(tables, gradient):
    """Each column's gradient depends on the others: no cut by columns, no constant coefficients."""
    energy, reference, _ = tables
    objective = CCDPO(1.0)
    assert not objective.separable and objective.coefficients(energy.shape[1]) is None
    changed = energy.detach().clone()
    changed[:, -1] += 1
    changed.requires_grad_()
    before, after = (gradient(objective(e, reference).loss_N, e)[:, 0] for e in (energy, changed))
    assert (before != after).all()
