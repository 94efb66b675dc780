"""MCLR on squared errors of a score: Theorem 3, Corollary 3, and what eq. 21 does without the weight.

The model is a table of scores s(x_t, c) on a grid of noisy points, float64 [M,*J,D], where J is the number
of points along each of D axes. The energy of a cell is the mean of |grad log p_0t(x_t|x_0) - s|^2 over
the x_0 that lead there, times the cell's mass: a quadratic in s whose coefficients are sums over x_0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mclr_fast.objectives import MCLR, PlusMinus, WeightedMCLR

from .examples import SUPPORT, negatives_of
from .gaussian_mixture import GaussianMixture
from .solvers import stationary_point

Objective = MCLR | PlusMinus | WeightedMCLR


class Joint(NamedTuple):
    """The joint of x_0 and x_t, summed over x_0; y = grad log p_0t(x_t|x_0) = (x_0 - x_t) / sigma^2."""

    points: Tensor  # the grid of x_t, [*J,D]
    mass: Tensor  # p_t(x_t|c) times the cell's volume, [M,*J]
    first: Tensor  # mass times E[y | x_t, c], [M,*J,D]
    second: Tensor  # mass times E[|y|^2 | x_t, c], [M,*J]

    def energy(self, score: Tensor) -> Tensor:
        """mass times E[|y - s(x_t, c)|^2 | x_t, c], [M,*J]; score: [M,*J,D]."""
        return self.mass * score.square().sum(-1) - 2 * (self.first * score).sum(-1) + self.second

    def mixed(self, shares: Tensor) -> Joint:
        """The joints of mixtures of the classes; shares: [M',M], rows of mass 1."""
        moments = (torch.tensordot(shares, moment, dims=1) for moment in self[1:])
        return Joint(self.points, *moments)


def noisy_joint(
    mixture: GaussianMixture, sigma: float, num_clean: int, num_noisy: int, reach: float | None = None
) -> Joint:
    """The joint under noise `sigma`, from `num_clean` values of x_0 and `num_noisy` of x_t along each axis.

    x_t is kept within +-reach, by default K and 4 sigma more; x_0 ranges over K. The moments are sums of
    p(x_0|c) N(x_t; x_0, sigma^2 I) over the grid of x_0: no formula for p_t.
    """
    dim = mixture.means.shape[1]
    low, high = SUPPORT
    reach = high + 4 * sigma if reach is None else reach
    clean, noisy = _axis(low, high, num_clean), _axis(-reach, reach, num_noisy)
    points_clean, points = _points(clean, dim), _points(noisy, dim)
    labels = torch.arange(mixture.num_classes).view(-1, *[1] * dim)
    p = mixture.log_prob(points_clean, c=labels).exp()
    p = p / p.sum(dim=tuple(range(1, dim + 1)), keepdim=True)
    kernel = (-0.5 * ((noisy[:, None] - clean) / sigma).square()).exp()  # [J,I]
    kernel = kernel * (noisy[1] - noisy[0]) / (sigma * math.sqrt(2 * math.pi))

    def blurred(field: Tensor) -> Tensor:
        for _ in range(dim):
            field = torch.tensordot(field, kernel, dims=([1], [1]))  # moves the blurred axis to the end
        return field

    mass = blurred(p)
    mean = torch.stack([blurred(p * points_clean[..., d]) for d in range(dim)], dim=-1)
    square = blurred(p * points_clean.square().sum(-1))
    first = (mean - mass[..., None] * points) / sigma**2
    second = (square - 2 * (mean * points).sum(-1) + mass * points.square().sum(-1)) / sigma**4
    return Joint(points, mass, first, second)


def expected_losses(
    objective: Objective, positives: Joint, negatives: Joint, score: Tensor, ratio: Tensor | None = None
) -> Tensor:
    """The objective's expected value under each label, a cell's share at a time; [M,*J].

    A row of the energy table is one cell under one label: column 0 holds the positives that fall there,
    column 1 the negatives. ratio: [M,*J], the weight a at the cell.
    """
    table = torch.stack([positives.energy(score), negatives.energy(score)], dim=-1).flatten(0, -2)
    ratio_NK = None if ratio is None else ratio.reshape(-1, 1)
    return objective(table, ratio_NK=ratio_NK).loss_N.view(positives.mass.shape)


class Fit(NamedTuple):
    """Where an objective is stationary, and whether that is a minimum."""

    score: Tensor  # [M,*J,D]
    curvature: Tensor  # [M,*J], over the mass of the positives in the cell; a minimum where it is positive


def fit_score(objective: Objective, positives: Joint, negatives: Joint, ratio: Tensor | None = None) -> Fit:
    """The score table at which the objective's expected value is stationary; ratio as in expected_losses.

    It starts from 0 and takes slope and curvature from the loss itself, by differentiating it.
    """

    def loss(score: Tensor) -> Tensor:
        return expected_losses(objective, positives, negatives, score, ratio).sum()

    score, curvature = stationary_point(loss, torch.zeros_like(positives.first))
    return Fit(score, curvature[..., 0] / 2 / positives.mass)


def fit_weighted(
    mixture: GaussianMixture, sigma: float, joint: Joint, eta: float, *, include_own: bool = True
) -> Fit:
    """Eq. 23, with the exact weight a = p_t(x_t|c~) / p_t(x_t)."""
    negatives = joint.mixed(negatives_of(mixture.class_probs, include_own=include_own))
    ratio = density_ratio(*class_and_marginal(mixture, sigma, joint))
    return fit_score(WeightedMCLR(eta), joint, negatives, ratio)


def fit_unweighted(mixture: GaussianMixture, joint: Joint, eta: float, *, include_own: bool = True) -> Fit:
    """Eq. 21 over eta; eta = inf leaves MCLR alone, eq. 22."""
    negatives = joint.mixed(negatives_of(mixture.class_probs, include_own=include_own))
    return fit_score(MCLR(dsm_weight=1 / eta), joint, negatives)


def fit_plus_minus(models: GaussianMixture, sigma: float, joint: Joint, eta: float, *, weighted: bool) -> Fit:
    """Eq. 141, or eq. 142 where not `weighted`, for p+ = class 0 of `models` and p- = class 1; M = 1."""
    plus, minus = (joint.mixed(row[None]) for row in torch.eye(2, dtype=torch.float64))
    ratio = density_ratio(*plus_and_minus(models, sigma, joint)) if weighted else None
    return fit_score(PlusMinus(eta), plus, minus, ratio)


class Exact(NamedTuple):
    """A noisy density in closed form, on the grid of x_t."""

    log_p: Tensor  # [M,*J], or [*J] for all classes alike
    score: Tensor  # [M,*J,D], or [*J,D]


def exact(mixture: GaussianMixture, sigma: float, joint: Joint, c: Tensor | int | None) -> Exact:
    """log p_t(x_t|c) and its gradient; of p_t(x_t) for c = None."""
    return Exact(mixture.log_prob(joint.points, sigma, c), mixture.score(joint.points, sigma, c))


def class_and_marginal(mixture: GaussianMixture, sigma: float, joint: Joint) -> tuple[Exact, Exact]:
    """p_t(.|c) of every class, and p_t."""
    return exact(mixture, sigma, joint, _labels(mixture, joint)), exact(mixture, sigma, joint, None)


def plus_and_minus(models: GaussianMixture, sigma: float, joint: Joint) -> tuple[Exact, Exact]:
    """p+_t and p-_t, classes 0 and 1 of `models`; M = 1."""
    plus, minus = _labels(models, joint).split(1)
    return exact(models, sigma, joint, plus), exact(models, sigma, joint, minus)


def density_ratio(plus: Exact, minus: Exact) -> Tensor:
    """The weight a = p+_t / p-_t; p_t(.|c) / p_t where these are the two."""
    return (plus.log_p - minus.log_p).exp()


def guided_score(plus: Exact, minus: Exact, eta: float) -> Tensor:
    """(1+eta) grad log p+_t - eta grad log p-_t: CFG (Theorem 3) and its variants (eq. 140)."""
    return (1 + eta) * plus.score - eta * minus.score


def difference_score(plus: Exact, minus: Exact, eta: float) -> Tensor:
    """grad log h_t, h_t = (1+eta) p+_t - eta p-_t, where it is positive: the density of Theorem 1."""
    a = density_ratio(plus, minus)[..., None]
    return ((1 + eta) * a * plus.score - eta * minus.score) / ((1 + eta) * a - eta)


def share_of_guidance(curvature: Tensor, eta: float) -> Tensor:
    """What `fit_unweighted` adds to the conditional score, over what CFG adds to it; curvature's shape.

    The difference score is s_c + eta / ((1+eta) a - eta) (s_c - s) at a = p_t(x_t|c) / p_t(x_t), where the
    fit's curvature is (1+eta) / eta - 1/a. It is 1 at a = 1, less where c is likely, infinite at h_t = 0.
    """
    return ((1 + eta) / eta - curvature) / (eta * curvature)


def relative_error(score: Tensor, truth: Tensor, mass: Tensor) -> Tensor:
    """sqrt(E |score - truth|^2 / E |truth|^2) over x_t of the given mass; [M,*J,D], [M,*J] -> [M]."""
    error, size = ((mass * v.square().sum(-1)).flatten(1).sum(1) for v in (score - truth, truth))
    return (error / size).sqrt()


def _labels(mixture: GaussianMixture, joint: Joint) -> Tensor:
    """The class indices, [M,1,...], so that they broadcast against the grid."""
    return torch.arange(mixture.num_classes).view(-1, *[1] * (joint.points.ndim - 1))


def _axis(low: float, high: float, count: int) -> Tensor:
    """Midpoints of `count` cells of [low, high]."""
    return low + (high - low) / count * (torch.arange(count, dtype=torch.float64) + 0.5)


def _points(axis: Tensor, dim: int) -> Tensor:
    """The grid with the same points along each of `dim` axes, [*J,D]."""
    return torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), dim=-1)
