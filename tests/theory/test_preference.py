"""CC-DPO and CCA on exact likelihoods: Theorem 2, Corollary 2 and section C."""

from itertools import pairwise

import pytest
import torch

from mclr_fast.objectives import CCA, CCDPO
from mclr_fast.theory import examples, preference
from mclr_fast.theory.likelihood import total_variation

CELLS = 24


@pytest.fixture(scope="module")
def classes(line_classes):
    return line_classes(CELLS)


@pytest.fixture(scope="module")
def base(classes):
    """A base that leaks, so that the optimum is not the data and not the base."""
    return 0.7 * classes.density + 0.3 * classes.marginal


@pytest.fixture
def distance(classes, base):
    """`distance(objective, c)`: total variation between its minimiser and (20), and that one's mass."""

    def measured(objective, c=0, **model):
        fitted = preference.fit_preference(objective, classes, base, c, **model)
        mass = fitted.sum().item() * classes.cell
        closed, _ = preference.gamma_powered(classes, base, objective.beta)
        return total_variation(fitted / mass, closed[c], classes.cell).item(), mass

    return measured


@pytest.fixture
def right(classes, base):
    return lambda beta, c=0: preference.right_lambda(classes, base, beta)[c].item()


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_theorem_2(classes, base, distance, beta):
    assert distance(CCDPO(beta))[0] < 1e-5
    closed, _ = preference.gamma_powered(classes, base, beta)
    for other in (base, classes.density):
        assert total_variation(closed[0], other[0], classes.cell) > 0.02


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_cca_reaches_it_with_the_right_lambda(distance, right, beta):
    assert distance(CCA(beta, right(beta)))[0] < 1e-5


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_with_the_wrong_lambda_a_density_does_not(classes, base, right, factor):
    """And not for want of minimising: its loss is below that of (20)."""
    objective = CCA(1.0, factor * right(1.0))
    fitted = preference.fit_preference(objective, classes, base, 0)
    closed = preference.gamma_powered(classes, base, 1.0)[0][0]
    assert total_variation(fitted, closed, classes.cell) > 0.05
    loss_fitted, loss_closed = (pairs_loss(objective, classes, base, density) for density in (fitted, closed))
    assert loss_fitted < loss_closed - 1e-4


def pairs_loss(objective, classes, base, density):
    """The expected loss for class 0, from its two separate terms (159), without pairs."""
    log_ratio = objective.beta * (density / base[0]).log()
    wanted = (classes.density[0] * torch.nn.functional.softplus(-log_ratio)).sum()
    other = (classes.marginal * torch.nn.functional.softplus(log_ratio)).sum()
    return ((wanted + objective.lambda_ * other) * classes.cell).item()


@pytest.mark.parametrize(("factor", "beta"), [(4.0, 1.0), (0.25, 2.0)])
def test_a_model_of_any_mass_is_only_scaled_by_a_wrong_lambda(distance, right, factor, beta):
    """(118): its shape is (20) for every lambda, its mass (lambda* / lambda)^(1/beta)."""
    apart, mass = distance(CCA(beta, factor * right(beta)), normalised=False)
    assert apart < 1e-5
    assert mass == pytest.approx(factor ** (-1 / beta), rel=1e-5)


def test_no_lambda_is_right_for_classes_that_differ(right):
    """(119) depends on the class: one lambda, as CCA has it, cannot serve all."""
    lambdas = [right(1.0, c) for c in range(3)]
    assert min(abs(a - b) for a, b in pairwise(lambdas)) > 0.2


@pytest.mark.parametrize("beta", [1.5, 3.0])
def test_corollary_2(classes, beta):
    """From a base that leaks by (101), CC-DPO at the same beta recovers p(x|c); at another not."""
    base = preference.leaking_geometrically(classes, beta)
    recovered = preference.fit_preference(CCDPO(beta), classes, base, 0)
    weaker = preference.fit_preference(CCDPO(2 * beta), classes, base, 0)
    assert total_variation(recovered, classes.density[0], classes.cell) < 1e-5
    for other in (base[0], weaker):
        assert total_variation(other, classes.density[0], classes.cell) > 0.01


@pytest.mark.parametrize(("mixture", "same"), [(examples.equal_line, True), (examples.line, False)])
def test_cca_may_pair_labels_where_classes_are_equal(random_table, mixture, same):
    """Wrong labels on the row's image, or other images under its label: one expectation, if p(c) is flat."""
    classes = examples.on_grid(mixture(), CELLS)
    energy, base = random_table(2, 3, CELLS)
    objective = CCA(0.7, 1.3)
    gap = objective.beta * (energy - base)
    positive, negative = (classes.density @ torch.nn.functional.softplus(sign * gap).mT for sign in (1, -1))
    # [i, k]: samples of class i scored under label k.
    drawn = classes.prior[:, None] * examples.drawn_labels(classes.prior, include_own=False)
    labels = classes.prior @ positive.diag() + objective.lambda_ * (drawn * negative).sum()
    images = classes.prior @ positive.diag() + objective.lambda_ * (drawn.mT * negative).sum()
    assert (abs(labels - images) < 1e-12) == same
