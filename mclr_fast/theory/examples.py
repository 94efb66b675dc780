"""The data on which the theorems are checked: classes overlap, and their sizes differ."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .gaussian_mixture import GaussianMixture

SUPPORT = (-6.0, 6.0)  # K of Assumption 1; no example has a mass above 1e-7 outside


def line() -> GaussianMixture:
    """Three classes on a line, of sizes 0.5, 0.3 and 0.2; the first has two modes."""
    return GaussianMixture.isotropic(
        weights=[0.3, 0.2, 0.3, 0.2],
        means=[[-1.6], [2.0], [0.0], [1.2]],
        stds=[0.6, 0.5, 0.7, 0.4],
        classes=[0, 0, 1, 2],
    )


def equal_line() -> GaussianMixture:
    """Three classes of one size on a line, without symmetry."""
    return GaussianMixture.isotropic(
        weights=[1 / 3, 1 / 3, 1 / 3],
        means=[[-1.5], [0.0], [1.2]],
        stds=[0.7, 0.8, 0.5],
        classes=[0, 1, 2],
    )


def plane() -> GaussianMixture:
    """Three elongated classes in the plane, turned against each other, of sizes 0.4, 0.35 and 0.25."""
    angles = torch.tensor([0.2, 2.3, 4.4], dtype=torch.float64)
    turn = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=-1).view(3, 2, 2)
    covariances = turn @ torch.diag(torch.tensor([0.7, 0.3], dtype=torch.float64).square()) @ turn.mT
    return GaussianMixture([0.4, 0.35, 0.25], 1.1 * turn[:, :, 0], covariances, [0, 1, 2])


def strong_and_weak() -> GaussianMixture:
    """Class 0 is p+, the samples of a strong model; class 1 is p-, of a weak one: wider, leaking."""
    return GaussianMixture.isotropic(
        weights=[0.3, 0.2, 0.2, 0.2, 0.1],
        means=[[-1.4], [1.4], [-1.2], [1.3], [0.2]],
        stds=[0.5, 0.4, 0.8, 0.7, 1.0],
        classes=[0, 0, 1, 1, 1],
    )


class GridClasses(NamedTuple):
    """Class densities on the cells of a grid over K; sums over the grid stand for integrals."""

    points: Tensor  # [G], the cells' midpoints
    cell: float  # their width
    prior: Tensor  # p(c), [M]
    density: Tensor  # p(x|c), [M,G], of mass 1 on the grid

    @property
    def marginal(self) -> Tensor:
        """p(x) = sum_c p(c) p(x|c), [G]."""
        return self.prior @ self.density

    @property
    def volume(self) -> float:
        """|K|."""
        return len(self.points) * self.cell

    def expect(self, values: Tensor, density: Tensor | None = None) -> Tensor:
        """The integral of density times values over x, density p(x|c) unless given; [M,G] -> [M]."""
        return (self.density if density is None else density).mul(values).sum(dim=-1) * self.cell


def on_grid(mixture: GaussianMixture, num_cells: int) -> GridClasses:
    """A mixture on the line, cut into `num_cells` cells of K."""
    low, high = SUPPORT
    cell = (high - low) / num_cells
    points = low + cell * (torch.arange(num_cells, dtype=torch.float64) + 0.5)
    labels = torch.arange(mixture.num_classes)
    density = mixture.log_prob(points[:, None], c=labels[:, None]).exp()
    density = density / (density.sum(dim=1, keepdim=True) * cell)
    return GridClasses(points, cell, mixture.class_probs, density)


def drawn_labels(prior: Tensor, *, include_own: bool = True) -> Tensor:
    """p(c~|c), [M,M], a row for each c: the prior, or the prior without c itself."""
    drawn = prior.expand(len(prior), -1)
    if include_own:
        return drawn
    drawn = drawn - torch.diag(prior)
    return drawn / drawn.sum(dim=1, keepdim=True)


def negatives_of(prior: Tensor, *, include_own: bool = True) -> Tensor:
    """[M,M]: row c says from which classes the samples come that are negatives under label c.

    Form I scores samples of c under wrong labels c~. Gathered by label these are samples of other
    classes under one label; with the own class included they are samples of p(x), as in form II.
    """
    return (prior[:, None] * drawn_labels(prior, include_own=include_own) / prior).mT
