"""One micro-batch: evaluate the network, form the loss, back-propagate. One class a way of doing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mclr_fast import ops
from mclr_fast.models.edm2 import Precond

from .minibatch import Minibatch, noisy
from .reference import Reference

Ratio = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_noisy [n,C,H,W] or [n,w,C,H,W], sigma [n], labels [n,w]) -> the weights a of eq. 23 or 141, [n,w]."""


class Loss(Protocol):
    """How a micro-batch is scored. uses_logvar: it trains the network's u(sigma)."""

    uses_logvar: bool

    def backward(self, net: Precond, part: Minibatch, seed: int, scale: float) -> tuple[Tensor, Tensor]:
        """Back-propagate `scale` times the part's share of the loss.

        Returns the loss (sum over the part's rows, unscaled) and the energies' sum per column, float64 [R],
        zero outside the part's columns.
        """
        ...


@dataclass(frozen=True)
class ContrastLoss:
    """dL/de is constant: loss and gradient in one pass. With `ratio` the constants are each row's own."""

    objective: Any
    ratio: Ratio | None = None

    uses_logvar = False

    def backward(self, net: Precond, part: Minibatch, seed: int, scale: float) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`."""
        x_noisy, net_input = noisy(part, seed, net.sigma_data, net.dtype)
        coefficients = self._coefficients(x_noisy, part)
        raw = net(net_input, part.sigma, part.labels, output="network")
        energy = _backward_sum(net, part, raw, x_noisy, scale * coefficients)
        return (energy.double() * coefficients.double()).sum(), part.column_sums(energy)

    def _coefficients(self, x_noisy: Tensor, part: Minibatch) -> Tensor:
        """dL/de of the part, float32 [n,w]."""
        if self.ratio is None:
            row = self.objective.coefficients(part.num_columns).to(part.labels.device)
            return row[part.columns].expand(part.labels.shape)
        # A coefficient depends on its own column's ratio alone, so those of columns elsewhere may be 1.
        ratio = torch.ones(len(part.labels), part.num_columns, device=part.labels.device)
        with torch.no_grad():
            ratio[:, part.columns] = self.ratio(x_noisy, part.sigma, part.labels)
        return self.objective.row_coefficients(ratio[:, 1:])[:, part.columns]


@dataclass(frozen=True)
class ComparedLoss:
    """The loss is of the policy's energies and the frozen reference's on the same evaluations."""

    objective: Any
    reference: Reference

    uses_logvar = False

    def backward(self, net: Precond, part: Minibatch, seed: int, scale: float) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`."""
        x_noisy, net_input = noisy(part, seed, net.sigma_data, net.dtype)
        reference = self.reference(net_input, part.sigma, part.labels, net.dropout_key)
        reference = _energies(net, part, reference, x_noisy)
        energy = _energies(net, part, net(net_input, part.sigma, part.labels, output="network"), x_noisy)
        if self.objective.separable:
            shares = self.objective.column_losses(energy, reference, part.columns, part.num_columns)
        else:
            shares = self.objective(energy, reference).loss_N
        (shares.sum() * scale).backward()
        return shares.detach().double().sum(), part.column_sums(energy)


@dataclass(frozen=True)
class ReplacedTargetLoss:
    """The squared error to a target made of x and the network's own stopped outputs (GFT, model guidance).

    Two evaluations an image: under its label, and under none without gradients.
    """

    objective: Any

    uses_logvar = False

    def backward(self, net: Precond, part: Minibatch, seed: int, scale: float) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`; the energies are of the images, not of the targets."""
        x_noisy, net_input = noisy(part, seed, net.sigma_data, net.dtype)
        no_label = torch.full_like(part.labels, -1)
        with torch.no_grad():
            uncond = net(net_input, part.sigma, no_label, output="network")
        cond = net(net_input, part.sigma, part.labels, output="network")
        denoised = (self._denoised(raw, x_noisy, part.sigma, net.sigma_data) for raw in (cond, uncond))
        target = self.objective.target(*denoised, part.x)
        coefficients = self.objective.coefficients(1).to(target.device).expand(part.labels.shape)
        error = _backward_sum(net, replace(part, x=target), cond, x_noisy, scale * coefficients)
        energy = _energies(net, part, cond.detach(), x_noisy)
        return (error.double() * coefficients.double()).sum(), part.column_sums(energy)

    @staticmethod
    def _denoised(raw: Tensor, x_noisy: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
        """D of the raw output F, [n,1,C,H,W] -> [n,C,H,W]. Source: EDM (arXiv 2206.00364), Table 1."""
        sigma = sigma.view(-1, 1, 1, 1)
        total = sigma**2 + sigma_data**2
        scaled = sigma * sigma_data / total.sqrt() * raw.detach()[:, 0].float()
        return sigma_data**2 / total * x_noisy + scaled


@dataclass(frozen=True)
class DenoisingLoss:
    """EDM2's uncertainty-weighted loss: one column, and the network's own u(sigma)."""

    objective: Any

    uses_logvar = True

    def backward(self, net: Precond, part: Minibatch, seed: int, scale: float) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`."""
        x_noisy, net_input = noisy(part, seed, net.sigma_data, net.dtype)
        raw, logvar = net(net_input, part.sigma, part.labels, return_logvar=True, output="network")
        energy = _energies(net, part, raw, x_noisy)
        loss_N, _ = self.objective(energy[:, 0], logvar.flatten(), part.x[0].numel())
        (loss_N.sum() * scale).backward()
        return loss_N.detach().double().sum(), part.column_sums(energy)


def _energies(net: Precond, part: Minibatch, raw: Tensor, x_noisy: Tensor) -> Tensor:
    """The energies of raw outputs, [n,w]."""
    return ops.weighted_sq_error(raw, part.x, x_noisy, part.sigma, part.weight, sigma_data=net.sigma_data)


def _backward_sum(
    net: Precond, part: Minibatch, raw: Tensor, x_noisy: Tensor, coefficients: Tensor
) -> Tensor:
    """Back-propagate the sum of coefficients [n,w] times energies; returns the energies, [n,w].

    The step's scale is in the coefficients: so the gradient that the loss's own pass makes is the final one.
    """
    loss, energy = ops.contrast_loss(
        raw, part.x, x_noisy, part.sigma, part.weight, coefficients, sigma_data=net.sigma_data
    )
    loss.backward()
    return energy
