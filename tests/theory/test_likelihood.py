"""MCLR on exact likelihoods: its forms, Theorem 1, Corollary 1, and what the own class is needed for."""

import pytest
import torch

from mclr_fast.theory import examples
from mclr_fast.theory import likelihood as L
from mclr_fast.theory.likelihood import total_variation

FORMS = (L.symmetric_form, L.label_form, L.image_form)


def by_hand(classes, energy, eta):
    """Eq. 11 written out: (1+eta) E_p(x|c) log p - eta E_p(x) log p, averaged over c; its negative."""
    own = classes.expect(energy)
    everyones = classes.expect(energy, classes.marginal)
    return (classes.prior @ ((1 + eta) * own - eta * everyones)).item()


@pytest.mark.parametrize("eta", [0.2, 1.0, 6.0])
@pytest.mark.parametrize("form", FORMS)
def test_the_forms_agree(line_classes, random_table, form, eta):
    """(10) = (11) = (12) for any model, normalised or not, with classes of different sizes."""
    classes, energy = line_classes(30), random_table(3, 30)
    assert form(classes, energy, eta) == pytest.approx(by_hand(classes, energy, eta), rel=1e-12)


def test_without_the_own_class_the_forms_part(line_classes, random_table):
    """Unequal classes: wrong labels and images of other classes then weigh the classes differently."""
    classes, energy = line_classes(30), random_table(3, 30)
    labels, images = (form(classes, energy, 1.0, include_own=False) for form in FORMS[1:])
    assert abs(labels - images) > 0.01


def test_the_expected_columns_are_the_sum_over_tuples(line_classes, random_table):
    """What the solver minimises is (11): `contrast_columns` gathers by label what is drawn by sample."""
    classes, energy = line_classes(30), random_table(3, 30)
    for include_own in (True, False):
        negatives = examples.negatives_of(classes.prior, include_own=include_own)
        own, wrong = L.contrast_columns(classes, energy, negatives).unbind(1)
        gathered = (classes.prior @ (own + 0.7 * (own - wrong))).item()
        summed = L.label_form(classes, energy, 0.7, include_own=include_own)
        assert gathered == pytest.approx(summed, rel=1e-12)


@pytest.fixture
def fit(random_table):
    """`fit(classes, eta, floor, ...)`: the maximiser of (11) from a random density."""

    def fitted(classes, eta, floor, **pairing):
        start = random_table(*classes.density.shape).exp()
        start = start / (start.sum(dim=1, keepdim=True) * classes.cell)
        return L.fit_mclr(classes, eta, floor, floor + (1 - floor * classes.volume) * start, **pairing)

    return fitted


@pytest.mark.parametrize("floor", [0.03, 1e-3, 1e-6])
@pytest.mark.parametrize("eta", [0.25, 4.0])
def test_theorem_1(line_classes, fit, eta, floor):
    """Maximising (11) over p >= delta gives max(h/Z, delta); at delta -> 0 it is h+ over its mass (17)."""
    classes = line_classes(100)
    h = L.sum_of_difference(classes, eta)
    fitted = fit(classes, eta, floor)
    assert total_variation(fitted, L.floored(h, floor, classes.cell), classes.cell).max() < 1e-9
    limit = total_variation(fitted, L.positive_part(h, classes.cell), classes.cell).max()
    assert limit < classes.volume * floor
    assert total_variation(fitted, classes.density, classes.cell).min() > 0.01  # and it is not the data


def test_the_floor_alone_bounds_the_objective(line_classes, fit):
    """Each tenfold lower floor raises the optimum by log 10 times the mass of h below 0: no limit."""
    classes, eta = line_classes(50), 4.0
    below = (classes.prior @ L.sum_of_difference(classes, eta).clamp(max=0).abs().sum(1)) * classes.cell
    optima = [-L.label_form(classes, -fit(classes, eta, floor).log(), eta) for floor in (1e-5, 1e-6, 1e-7)]
    gains = torch.tensor(optima).diff()
    torch.testing.assert_close(gains, (below * torch.tensor(10.0).log()).float().expand(2), rtol=1e-3, atol=0)


def test_without_the_own_class_eta_is_stronger(fit):
    """M classes of one size: eta acts as eta M / (M - 1)."""
    classes, eta, floor = examples.on_grid(examples.equal_line(), 100), 0.8, 1e-3
    fitted = fit(classes, eta, floor, include_own=False)
    stronger, plain = (
        L.floored(L.sum_of_difference(classes, strength), floor, classes.cell)
        for strength in (eta * 1.5, eta)
    )
    assert total_variation(fitted, stronger, classes.cell).max() < 1e-9
    assert total_variation(fitted, plain, classes.cell).max() > 0.01


@pytest.mark.parametrize("eta", [0.1, 0.9])
def test_corollary_1(line_classes, eta):
    """From a base that leaks by (18), the KL form (13) at the same eta recovers p(x|c); at another not."""
    classes = line_classes(100)
    base = (1 - eta) * classes.density + eta * classes.marginal
    assert total_variation(base, classes.density, classes.cell).min() > 0.01
    recovered = L.fit_kl_mclr(classes, eta, base)
    assert total_variation(recovered, classes.density, classes.cell).max() < 1e-6
    weaker = L.fit_kl_mclr(classes, eta / 2, base)
    assert total_variation(weaker, classes.density, classes.cell).min() > 0.005
