"""MCLR on exact likelihoods: its three forms, Theorem 1, Corollary 1.

A model is a table of energies e(x, c) = -log p_theta(x|c) on a grid, float64 [M,G].
"""

from __future__ import annotations

import torch
from torch import Tensor

from mclr_fast.objectives import KLMCLR, MCLR

from .examples import GridClasses, drawn_labels, negatives_of
from .solvers import minimise_density


def symmetric_form(classes: GridClasses, energy: Tensor, eta: float) -> float:
    """Minus eq. 10, summed over all (c, c~, x, y) with x ~ p(.|c) and y ~ p(.|c~)."""
    num_classes, num_cells = energy.shape
    labels, cells = torch.arange(num_classes), torch.arange(num_cells)
    c, d, x, y = (index.flatten() for index in torch.meshgrid(labels, labels, cells, cells, indexing="ij"))
    mass = classes.density * classes.cell
    weight = classes.prior[c] * classes.prior[d] * mass[c, x] * mass[d, y]
    contrast = MCLR()
    right = contrast(torch.stack([energy[c, x], energy[d, x]], dim=1)).loss_N
    left = contrast(torch.stack([energy[d, y], energy[c, y]], dim=1)).loss_N
    return (weight @ (energy[c, x] + eta / 2 * (right + left))).item()


def label_form(classes: GridClasses, energy: Tensor, eta: float, *, include_own: bool = True) -> float:
    """Minus eq. 11, summed over all (c, c~, x) with x ~ p(.|c)."""
    num_classes, num_cells = energy.shape
    labels, cells = torch.arange(num_classes), torch.arange(num_cells)
    c, d, x = (index.flatten() for index in torch.meshgrid(labels, labels, cells, indexing="ij"))
    drawn = drawn_labels(classes.prior, include_own=include_own)
    weight = classes.prior[c] * drawn[c, d] * classes.density[c, x] * classes.cell
    loss = MCLR()(torch.stack([energy[c, x], energy[d, x]], dim=1)).loss_N
    return (weight @ (energy[c, x] + eta * loss)).item()


def image_form(classes: GridClasses, energy: Tensor, eta: float, *, include_own: bool = True) -> float:
    """Minus eq. 12, summed over all (c, x, y) with x ~ p(.|c), and y ~ p or of a class other than c."""
    num_classes, num_cells = energy.shape
    labels, cells = torch.arange(num_classes), torch.arange(num_cells)
    c, x, y = (index.flatten() for index in torch.meshgrid(labels, cells, cells, indexing="ij"))
    mass = classes.density * classes.cell
    mass_of_y = drawn_labels(classes.prior, include_own=include_own) @ mass
    weight = classes.prior[c] * mass[c, x] * mass_of_y[c, y]
    loss = MCLR(form=2)(torch.stack([energy[c, x], energy[c, y]], dim=1)).loss_N
    return (weight @ (energy[c, x] + eta * loss)).item()


def contrast_columns(classes: GridClasses, energy: Tensor, negatives: Tensor) -> Tensor:
    """Expected energies under each label: of its own samples, and of its negatives; [M,2].

    An objective that is linear in its energies has, on this table, its expected value.
    """
    mass = classes.density * classes.cell
    return torch.stack([(mass * energy).sum(dim=1), (negatives @ mass * energy).sum(dim=1)], dim=1)


def fit_mclr(
    classes: GridClasses, eta: float, floor: float, start: Tensor, *, include_own: bool = True
) -> Tensor:
    """The densities [M,G] that maximise eq. 11 among those with p >= floor."""
    negatives = negatives_of(classes.prior, include_own=include_own)
    objective = MCLR(dsm_weight=1 / eta)  # eta times it is likelihood plus eta times the contrast

    def losses(density: Tensor) -> Tensor:
        return eta * objective(contrast_columns(classes, -density.log(), negatives)).loss_N

    return minimise_density(losses, start, classes.cell, floor)


def fit_kl_mclr(classes: GridClasses, eta: float, reference: Tensor, floor: float = 1e-9) -> Tensor:
    """The densities [M,G] that maximise eq. 13 from the base `reference` [M,G].

    The optimum is above 0 everywhere; the floor only keeps the solver's logarithms finite.
    """
    negatives = negatives_of(classes.prior)
    objective = KLMCLR(eta)

    def losses(density: Tensor) -> Tensor:
        energy = -density.log()
        of_base = classes.expect(energy, reference)
        table = torch.cat([contrast_columns(classes, energy, negatives), of_base[:, None]], dim=1)
        return objective(table).loss_N

    return minimise_density(losses, reference, classes.cell, floor)


def sum_of_difference(classes: GridClasses, eta: float) -> Tensor:
    """h(x|c) = p(x|c) + eta (p(x|c) - p(x)) of Theorem 1, [M,G]; negative where x is another class's."""
    return (1 + eta) * classes.density - eta * classes.marginal


def floored(h: Tensor, floor: float, cell: float) -> Tensor:
    """max(h/Z, floor) with Z such that its mass is 1, by bisection; eq. 16. [M,G] -> [M,G]."""
    low, high = torch.zeros(len(h), 1, dtype=h.dtype), torch.full((len(h), 1), 1e3, dtype=h.dtype)
    for _ in range(200):
        middle = (low + high) / 2
        heavy = (h / middle).clamp(min=floor).sum(dim=1, keepdim=True) * cell > 1
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    return (h / high).clamp(min=floor)


def positive_part(h: Tensor, cell: float) -> Tensor:
    """h+ over its mass, the limit of a vanishing floor; eq. 17. [M,G] -> [M,G]."""
    h = h.clamp(min=0)
    return h / (h.sum(dim=1, keepdim=True) * cell)


def total_variation(p: Tensor, q: Tensor, cell: float) -> Tensor:
    """Half the integral of |p - q|; [...,G] -> [...]."""
    return (p - q).abs().sum(dim=-1) * cell / 2
