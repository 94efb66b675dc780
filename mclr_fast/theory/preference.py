"""CC-DPO and CCA on exact likelihoods: Theorem 2, Corollary 2, section C."""

from __future__ import annotations

import torch
from torch import Tensor

from mclr_fast.objectives import CCA, CCDPO

from .examples import GridClasses
from .solvers import minimise_smooth


def gamma_powered(classes: GridClasses, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """p_ref(x|c) (p(x|c)/p(x))^(1/beta) / Z(c), and Z(c); eq. 20. [M,G], [M]."""
    powered = reference * (classes.density / classes.marginal) ** (1 / beta)
    mass = powered.sum(dim=1) * classes.cell
    return powered / mass[:, None], mass


def right_lambda(classes: GridClasses, reference: Tensor, beta: float) -> Tensor:
    """The lambda of each class at which CCA's optimum has mass 1, Z(c)^beta; eq. 119. [M]."""
    return gamma_powered(classes, reference, beta)[1] ** beta


def leaking_geometrically(classes: GridClasses, beta: float) -> Tensor:
    """The base p_ref ~ p(x|c)^(1-1/beta) p(x)^(1/beta) of Corollary 2; eq. 101. [M,G]."""
    base = classes.density ** (1 - 1 / beta) * classes.marginal ** (1 / beta)
    return base / (base.sum(dim=1, keepdim=True) * classes.cell)


def fit_preference(
    objective: CCDPO | CCA, classes: GridClasses, reference: Tensor, c: int, *, normalised: bool = True
) -> Tensor:
    """What minimises the objective over all pairs (x_w ~ p(.|c), x_l ~ p), from the base `reference`; [G].

    A density where the model is `normalised`, as autoregressive models are; else a positive function of
    any mass. Only its logarithm is varied: one number a cell.
    """
    num_cells = len(classes.points)
    w, l = (index.flatten() for index in torch.meshgrid(*[torch.arange(num_cells)] * 2, indexing="ij"))  # noqa: E741
    wanted, other = classes.density[c] * classes.cell, classes.marginal * classes.cell
    weight = wanted[w] * other[l]
    energy_of_base = -reference[c].log()
    base_rows = torch.stack([energy_of_base[w], energy_of_base[l]], dim=1)

    def energy(logits: Tensor) -> Tensor:
        log_mass = logits.logsumexp(dim=0) + torch.tensor(classes.cell).log() if normalised else 0
        return log_mass - logits

    def loss(logits: Tensor) -> Tensor:
        e = energy(logits)
        return weight @ objective(torch.stack([e[w], e[l]], dim=1), base_rows).loss_N

    # A cell's curvature is about the mass that is sampled there, so the square root evens it out.
    scale = ((wanted + other) / 2).rsqrt()
    return (-energy(minimise_smooth(loss, reference[c].log(), scale))).exp()
