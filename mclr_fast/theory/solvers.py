"""Three minimisers that are told a loss and its constraint, and nothing else. All run in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def slope_and_curvature(loss: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and diagonal of the Hessian of a scalar loss whose Hessian is diagonal; values' shape."""
    (slope,) = torch.autograd.grad(loss, values, create_graph=True)
    if not slope.requires_grad:
        return slope, torch.zeros_like(slope)
    (curvature,) = torch.autograd.grad(slope.sum(), values)
    return slope.detach(), curvature


def stationary_point(loss: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
    """Where a separable quadratic loss is stationary, by one Newton step, and its curvature there.

    Shapes    start: any, also the results'.
    Meaning   a minimum where the curvature is positive; where it is negative there is none, and the
              loss falls without bound on both sides of the point.
    """
    values = start.clone().requires_grad_()
    slope, curvature = slope_and_curvature(loss(values), values)
    return values.detach() - slope / curvature, curvature


def minimise_density(
    losses: Callable[[Tensor], Tensor],
    start: Tensor,
    cell: float,
    floor: float,
    *,
    max_steps: int = 200,
    tolerance: float = 1e-10,
) -> Tensor:
    """Densities p >= floor of mass 1 that minimise losses(p) [M], where losses[m] is of p[m] alone.

    Shapes    start: [M,G], densities on G cells of width `cell` -> [M,G].
    Method    projected Newton: the loss's Hessian is diagonal, so its quadratic model is minimised over
              the constraint exactly, by bisection on one multiplier a row; steps are halved until the
              loss falls. Where the loss is not convex the curvature's magnitude stands in for it.
    Errors    ValueError where no density keeps above the floor.
    """
    num_cells = start.shape[1]
    if not 0 < floor * num_cells * cell < 1:
        raise ValueError(
            f"floor is {floor}; a density of mass 1 keeps above it only if it is above 0 and below "
            f"1/|K| = {1 / (num_cells * cell)}."
        )
    density = start.clone()
    for _ in range(max_steps):
        values = density.clone().requires_grad_()
        before = losses(values)
        slope, curvature = slope_and_curvature(before.sum(), values)
        target = _model_minimiser(density, slope, curvature.abs().clamp(min=1e-12), cell, floor)
        step = target - density
        if float(step.abs().max()) < tolerance:
            break
        promised = (slope * step).sum(dim=1)
        density = density + _step_length(losses, density, step, before.detach(), promised) * step
    return density


def minimise_smooth(loss: Callable[[Tensor], Tensor], start: Tensor, scale: Tensor) -> Tensor:
    """A minimiser of a smooth scalar loss, by L-BFGS in the coordinates values / scale.

    Shapes    start, scale: one shape, also the result's. `scale` evens out the curvature; it moves no
              minimum.
    """
    coordinates = (start / scale).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [coordinates],
        max_iter=200,
        history_size=50,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(coordinates * scale)
        value.backward()
        return value

    optimizer.step(closure)
    return (coordinates * scale).detach()


def _model_minimiser(density: Tensor, slope: Tensor, curvature: Tensor, cell: float, floor: float) -> Tensor:
    """The density that minimises slope (p - density) + curvature (p - density)^2 / 2, row by row.

    For a multiplier nu it is max(floor, density - (slope + nu) / curvature), whose mass falls with nu.
    """

    def candidate(nu: Tensor) -> Tensor:
        return (density - (slope + nu) / curvature).clamp(min=floor)

    # At `low` each cell alone holds mass 1, at `high` every cell is at the floor.
    low = (curvature * (density - 1 / cell) - slope).min(dim=1, keepdim=True).values
    high = (curvature * (density - floor) - slope).max(dim=1, keepdim=True).values
    for _ in range(200):
        middle = (low + high) / 2
        heavy = candidate(middle).sum(dim=1, keepdim=True) * cell > 1
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    return candidate((low + high) / 2)


def _step_length(
    losses: Callable[[Tensor], Tensor], density: Tensor, step: Tensor, before: Tensor, promised: Tensor
) -> Tensor:
    """The largest of 1, 1/2, 1/4, ... at which each row's loss falls enough (Armijo); [M,1]."""
    length = torch.ones(len(density), 1, dtype=density.dtype)
    rounding = 1e-15 * before.abs()
    for _ in range(50):
        after = losses(density + length * step)
        enough = after <= before + 1e-4 * length[:, 0] * promised + rounding
        if bool(enough.all()):
            break
        length = torch.where(enough[:, None], length, length / 2)
    return length
