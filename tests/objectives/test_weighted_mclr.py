"""Objectives that are linear in the energies: weighted MCLR, the p+/p- form, the KL form."""

import pytest
import torch

from mclr_fast.objectives import KLMCLR, MCLR, PlusMinus, WeightedMCLR


@pytest.fixture(params=[WeightedMCLR, PlusMinus])
def weighted(request):
    return request.param(0.6)


def margin_rows(energy, ratio, eta=0.6):
    """mean_k ((1+eta) e_0 - eta a_k e_k), row by row."""
    rows = []
    for e, a in zip(energy.tolist(), ratio.tolist(), strict=True):
        rows.append(sum((1 + eta) * e[0] - eta * a[k] * e[k + 1] for k in range(len(a))) / len(a))
    return rows


def test_formula(tables, assert_rows, weighted):
    """Eq. 126 and 141."""
    energy, _, ratio = tables
    assert_rows(weighted(energy, ratio_NK=ratio), margin_rows(energy, ratio))


def test_row_coefficients_are_the_gradient(tables, gradient, weighted):
    energy, _, ratio = tables
    ratio = ratio.clone().requires_grad_()  # ratios are weights: nothing flows into them
    loss_N = weighted(energy, ratio_NK=ratio).loss_N
    coefficients = weighted.row_coefficients(ratio)
    assert coefficients.dtype == torch.float32 and not coefficients.requires_grad
    torch.testing.assert_close(gradient(loss_N, energy).float(), coefficients)
    assert torch.autograd.grad(loss_N.sum(), ratio, allow_unused=True)[0] is None


def test_plus_minus_without_ratios(tables, assert_rows, gradient):
    """Eq. 142: a = 1."""
    energy, _, ratio = tables
    output = PlusMinus(0.6)(energy)
    assert_rows(output, margin_rows(energy, torch.ones_like(ratio)))
    coefficients = PlusMinus(0.6).coefficients(energy.shape[1])
    torch.testing.assert_close(gradient(output.loss_N, energy).float(), coefficients.expand(energy.shape))


def test_weighted_mclr_has_no_constants_of_its_own(tables):
    energy, _, _ = tables
    assert WeightedMCLR(0.6).coefficients(energy.shape[1]) is None
    with pytest.raises(ValueError, match=r"pass ratio_NK"):
        WeightedMCLR(0.6)(energy)


@pytest.mark.parametrize("wrong", [(5, 7), (5,), (5, 0)])
def test_ratios_of_another_shape(tables, weighted, wrong):
    energy, _, _ = tables
    message = rf"ratio_NK must be \[N, {energy.shape[1] - 1}\], one a negative, not \[5"
    with pytest.raises(ValueError, match=message):
        weighted(energy, ratio_NK=torch.ones(wrong))


def test_unit_ratios_are_mclr_with_denoising(tables):
    """(11): (1+eta) e_0 - eta mean e_k = eta MCLR(dsm_weight = 1/eta)."""
    energy, _, ratio = tables
    found = WeightedMCLR(0.5)(energy, ratio_NK=torch.ones_like(ratio)).loss_N
    torch.testing.assert_close(found, 0.5 * MCLR(dsm_weight=2.0)(energy).loss_N)


def test_kl_form(tables, assert_rows, gradient, num_negatives):
    """Eq. 13: e_ref + eta mean_k (e_0 - e_k), the sample of the base in the last column."""
    energy, reference, _ = tables
    table = torch.cat([energy, reference[:, :1]], dim=1).detach().requires_grad_()
    rows = []
    for row in table.tolist():
        negatives = row[1:-1]
        rows.append(row[-1] + 0.8 * sum(row[0] - e for e in negatives) / len(negatives))
    output = KLMCLR(0.8)(table)
    assert_rows(output, rows)
    assert output.terms["sample"].tolist() == table[:, -1].tolist()
    torch.testing.assert_close(output.terms["negative"], energy[:, 1:].mean(dim=1).detach())
    coefficients = KLMCLR(0.8).coefficients(2 + num_negatives)
    torch.testing.assert_close(gradient(output.loss_N, table).float(), coefficients.expand(table.shape))
