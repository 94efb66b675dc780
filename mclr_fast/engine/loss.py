"""One micro-batch: evaluate the network, form the loss, back-propagate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mclr_fast import ops
from mclr_fast.objectives import MCLR, Denoising

from .minibatch import Minibatch


def backward_contrast(
    net: nn.Module,
    objective: MCLR,
    batch: Minibatch,
    x_noisy: Tensor,
    columns: slice,
    num_columns: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Back-propagate `scale` times the part's share of the loss; constant coefficients (eq. 22).

    Returns the loss (sum over the part's rows, unscaled) and the energies' sum per column, float64
    [num_columns], zero outside `columns`.
    """
    coefficients = objective.coefficients(num_columns).to(x_noisy.device)[columns]
    denoised = net(x_noisy, batch.sigma, batch.labels)
    loss, energy = ops.contrast_loss(
        denoised,
        batch.x,
        x_noisy,
        batch.sigma,
        batch.weight,
        coefficients.expand(batch.labels.shape),
        output="denoised",
    )
    (loss * scale).backward()
    energies = torch.zeros(num_columns, dtype=torch.float64, device=x_noisy.device)
    energies[columns] = energy.double().sum(dim=0)
    return (energies[columns] * coefficients.double()).sum(), energies


def backward_denoising(
    net: nn.Module, objective: Denoising, batch: Minibatch, x_noisy: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The same for EDM2's uncertainty-weighted loss: one column, and the network's own u(sigma)."""
    denoised, logvar = net(x_noisy, batch.sigma, batch.labels[:, 0], return_logvar=True)
    energy = ops.weighted_sq_error(
        denoised[:, None], batch.x, x_noisy, batch.sigma, batch.weight, output="denoised"
    )[:, 0]
    loss_N, _ = objective(energy, logvar.flatten(), batch.x[0].numel())
    (loss_N.sum() * scale).backward()
    return loss_N.detach().double().sum(), energy.detach().double().sum().reshape(1)
