"""One micro-batch: evaluate the network, form the loss, back-propagate."""

from __future__ import annotations

import torch
from torch import Tensor

from mclr_fast import ops
from mclr_fast.models.edm2 import Precond
from mclr_fast.objectives import MCLR, Denoising

from .minibatch import Minibatch, noisy


def backward_contrast(
    net: Precond,
    objective: MCLR,
    batch: Minibatch,
    seed: int,
    columns: slice,
    num_columns: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Back-propagate `scale` times the part's share of the loss; constant coefficients (eq. 22).

    Returns the loss (sum over the part's rows, unscaled) and the energies' sum per column, float64
    [num_columns], zero outside `columns`.
    """
    coefficients = objective.coefficients(num_columns).to(batch.x.device)[columns]
    x_noisy, net_input = noisy(batch, seed, net.sigma_data, net.dtype)
    raw = net(net_input, batch.sigma, batch.labels, output="network")
    # The scale is in the coefficients: so the gradient that the loss's own pass makes is the final one.
    loss, energy = ops.contrast_loss(
        raw,
        batch.x,
        x_noisy,
        batch.sigma,
        batch.weight,
        (scale * coefficients).expand(batch.labels.shape),
        sigma_data=net.sigma_data,
    )
    loss.backward()
    energies = torch.zeros(num_columns, dtype=torch.float64, device=batch.x.device)
    energies[columns] = energy.double().sum(dim=0)
    return (energies[columns] * coefficients.double()).sum(), energies


def backward_denoising(
    net: Precond, objective: Denoising, batch: Minibatch, seed: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The same for EDM2's uncertainty-weighted loss: one column, and the network's own u(sigma)."""
    x_noisy, net_input = noisy(batch, seed, net.sigma_data, net.dtype)
    raw, logvar = net(net_input, batch.sigma, batch.labels, return_logvar=True, output="network")
    energy = ops.weighted_sq_error(
        raw, batch.x, x_noisy, batch.sigma, batch.weight, sigma_data=net.sigma_data
    )[:, 0]
    loss_N, _ = objective(energy, logvar.flatten(), batch.x[0].numel())
    (loss_N.sum() * scale).backward()
    return loss_N.detach().double().sum(), energy.detach().double().sum().reshape(1)
