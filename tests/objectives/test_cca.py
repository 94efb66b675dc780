"""CCA and DDO: one formula, cut by columns; DDO only names the weight and the negatives otherwise."""

import math

import pytest
import torch

from mclr_fast.objectives import CCA, DDO, ObjectiveOutput


@pytest.fixture(params=[CCA, DDO])
def make(request):
    return request.param


def test_formula(tables, assert_rows, make):
    """Eq. 159: -log sigmoid(-beta (e_0 - r_0)) - lambda mean_k log sigmoid(beta (e_k - r_k))."""
    beta, weight = 0.3, 2.5
    energy, reference, _ = tables
    rows = []
    for e, r in zip(energy.tolist(), reference.tolist(), strict=True):
        gaps = [a - b for a, b in zip(e, r, strict=True)]
        matched = math.log1p(math.exp(beta * gaps[0]))
        mismatched = [math.log1p(math.exp(-beta * gap)) for gap in gaps[1:]]
        rows.append(matched + weight * sum(mismatched) / len(mismatched))
    output = make(beta, weight)(energy, reference)
    assert_rows(output, rows)
    torch.testing.assert_close(output.terms["positive_gap"], (energy - reference)[:, 0].detach())


def test_at_the_reference(tables, gradient, make):
    """beta/2 for the positive, -weight beta / (2 K) for each negative."""
    energy, _, _ = tables
    num_negatives = energy.shape[1] - 1
    found = gradient(make(0.4, 3.0)(energy, energy).loss_N, energy)
    expected = torch.tensor([0.2] + [-0.6 / num_negatives] * num_negatives, dtype=torch.float64)
    torch.testing.assert_close(found, expected.expand_as(found))


def test_columns_sum_to_the_row(tables, gradient, make):
    """Cut anywhere: the same losses and the same gradients."""
    energy, reference, _ = tables
    objective, num_columns = make(0.3, 2.5), energy.shape[1]
    assert objective.separable and objective.coefficients(num_columns) is None
    whole = objective(energy, reference).loss_N
    whole_gradient = gradient(whole, energy)
    for cut in range(1, num_columns):
        parts = [
            objective.column_losses(energy[:, part], reference[:, part], part, num_columns)
            for part in torch.arange(num_columns).split([cut, num_columns - cut])
        ]
        assert [part.shape[1] for part in parts] == [cut, num_columns - cut]
        found = torch.cat(parts, dim=1).sum(dim=1)
        torch.testing.assert_close(found, whole)
        torch.testing.assert_close(gradient(found, energy), whole_gradient)


def test_pairing_is_a_matter_of_the_tuples(tables):
    energy, reference, _ = tables
    images, labels = (CCA(1.0, 1.0, pairing)(energy, reference).loss_N for pairing in ("images", "labels"))
    assert torch.equal(images, labels)
    with pytest.raises(ValueError, match="pairing must be one of images, labels, not 'both'"):
        CCA(1.0, 1.0, "both")


def test_ddo_is_cca(tables):
    energy, reference, _ = tables
    found, expected = DDO(0.3, 2.5)(energy, reference), CCA(0.3, 2.5)(energy, reference)
    assert isinstance(found, ObjectiveOutput) and torch.equal(found.loss_N, expected.loss_N)


def test_columns_that_do_not_fit(make):
    with pytest.raises(ValueError, match="energy has 3 columns, but 2 of 4 are named"):
        make(1.0, 1.0).column_losses(torch.ones(2, 3), torch.ones(2, 3), torch.arange(2), 4)


def test_negatives_that_are_matched_after_all():
    """None of them: the loss over max(lambda, 1). All: positives of weight 1, averaged over k."""
    torch.manual_seed(0)
    energy, reference = torch.randn(2, 5, 4, dtype=torch.float64)
    none = torch.zeros(5, 3, dtype=torch.bool)
    for lambda_, divisor in ((3.0, 3.0), (0.5, 1.0)):
        objective = CCA(0.7, lambda_)
        found = objective.with_matched(energy, reference, none)
        torch.testing.assert_close(found, objective(energy, reference).loss_N / divisor)
        gain = -torch.nn.functional.logsigmoid(-0.7 * (energy - reference))
        expected = (gain[:, 0] + gain[:, 1:].mean(dim=1)) / divisor
        torch.testing.assert_close(objective.with_matched(energy, reference, ~none), expected)


def test_rows_without_labels_have_matched_negatives():
    """Cut by columns or not: `with_matched` of the rows whose labels were dropped."""
    torch.manual_seed(0)
    energy, reference = torch.randn(2, 6, 4, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 3], [-1] * 4] * 3)
    objective = CCA(0.7, 3.0, label_dropout=0.5)
    expected = objective.with_matched(energy, reference, labels[:, 1:] < 0)
    for parts in ([range(4)], [[0, 1], [2], [3]]):
        shares = [
            objective.column_losses(energy[:, p], reference[:, p], torch.tensor(p), 4, labels[:, p])
            for p in map(list, parts)
        ]
        torch.testing.assert_close(torch.cat(shares, dim=1).sum(dim=1), expected)


def test_label_dropout_without_labels():
    """Which rows' labels were dropped, the loss is not told by a plain call."""
    energy = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"label_dropout = 0\.1 .* with_matched\(energy_NR, .*labels"):
        CCA(0.7, 3.0, label_dropout=0.1)(energy, energy)
