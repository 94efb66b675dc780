"""One micro-batch: evaluate the network, form the loss, back-propagate. One class a way of doing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mclr_fast.models import Family
from mclr_fast.models.denoiser import Denoisers, NoisyInputs
from mclr_fast.models.family import Frozen
from mclr_fast.models.rows import OWN_REFERENCE, Rows
from mclr_fast.objectives.protocols import Compared, Linear, ReplacedTarget

Ratio = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_noisy [n,C,H,W] or [n,w,C,H,W], sigma [n], labels [n,w]) -> the weights a of eq. 23 or 141, [n,w]."""


class Loss(Protocol):
    """How a micro-batch is scored."""

    def backward(self, net: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """Back-propagate `rows.scale` times the rows' share of the loss.

        Returns the loss (sum over rows, unscaled) and the energies' sum per column, float64 [R], zero outside
        the rows' columns.
        """
        ...


@lru_cache
def _coefficients_on(device: torch.device, objective: Linear | ReplacedTarget, num_columns: int) -> Tensor:
    """dL/de of a row, copied to the device once."""
    return objective.coefficients(num_columns).to(device)


@dataclass(frozen=True)
class LinearLoss:
    """dL/de is constant: loss and gradient in one pass. With `ratio` the constants are each row's own."""

    family: Family
    objective: Linear
    ratio: Ratio | None = None

    def backward(self, net: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`."""
        inputs = self.family.inputs(net, rows)
        coefficients = self._coefficients(inputs, rows)
        energy = self.family.contrast(net, inputs, rows.labels, rows.scale * coefficients)
        return (energy.double() * coefficients.double()).sum(), rows.column_sums(energy)

    def _coefficients(self, inputs: NoisyInputs, rows: Rows) -> Tensor:
        """dL/de of the rows, float32 [n,w]."""
        if self.ratio is None:
            row = _coefficients_on(rows.labels.device, self.objective, rows.num_columns)
            return row[rows.columns].expand(rows.labels.shape)
        # A coefficient depends on its own column's ratio alone, so those of columns elsewhere may be 1.
        ratio = torch.ones(len(rows.labels), rows.num_columns, device=rows.labels.device)
        with torch.no_grad():
            ratio[:, rows.columns] = self.ratio(inputs.x_noisy, inputs.sigma, rows.labels)
        return self.objective.row_coefficients(ratio[:, 1:])[:, rows.columns]


@dataclass(frozen=True)
class ComparedLoss:
    """The loss is of the policy's energies and the frozen reference's on the same evaluations."""

    family: Family
    objective: Compared
    reference: Frozen

    def backward(self, net: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`."""
        inputs = self.family.inputs(net, rows)
        reference = self._reference_energies(inputs, rows)

        def shares(energy: Tensor, part: slice = slice(None)) -> Tensor:
            if self.objective.separable:
                places = rows.columns, rows.num_columns, rows.labels[part]
                return self.objective.column_losses(energy, reference[part], *places)
            return self.objective(energy, reference[part]).loss_N

        def coefficients(energy: Tensor, part: slice) -> Tensor:
            with torch.enable_grad():
                energy = energy.detach().requires_grad_()
                (grad,) = torch.autograd.grad(shares(energy, part).sum() * rows.scale, energy)
            return grad

        energy = self.family.contrast(net, inputs, rows.labels, coefficients)
        return shares(energy).double().sum(), rows.column_sums(energy)

    def _reference_energies(self, inputs: Any, rows: Rows) -> Tensor:
        """Of the rows [n,w]; column 0's are not computed where they are kept."""
        own = rows.law.get(OWN_REFERENCE)
        if own is None:
            return self.reference.energies(inputs, rows.labels)
        if rows.labels.shape[1] == 1:
            return own[:, None]
        others = self.reference.energies(self.family.without_first(inputs), rows.labels[:, 1:])
        return torch.cat([own[:, None], others], dim=1)


@dataclass(frozen=True)
class ReplacedTargetLoss:
    """The squared error to a target made of x and the network's own stopped outputs (GFT, model guidance).

    Two evaluations an image: under its label, and under none without gradients.
    """

    family: Denoisers
    objective: ReplacedTarget

    def backward(self, net: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`; the energies are of the images, not of the targets."""
        family, inputs = self.family, self.family.inputs(net, rows)
        with torch.no_grad():
            uncond = family.outputs(net, inputs, torch.full_like(rows.labels, -1))
        cond = family.outputs(net, inputs, rows.labels)
        denoised = (family.denoised(net, inputs, raw)[:, 0] for raw in (cond, uncond))
        target = self.objective.target(*denoised, rows.x)
        coefficients = _coefficients_on(target.device, self.objective, 1).expand(rows.labels.shape)
        error = family.backward(net, inputs, cond, rows.scale * coefficients, target)
        energy = family.score(net, inputs, cond.detach())
        return (error.double() * coefficients.double()).sum(), rows.column_sums(energy)


@dataclass(frozen=True)
class OwnLoss:
    """What the family's bases are trained with: one column, under the image's own label."""

    family: Family

    def backward(self, net: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """As `Loss.backward`."""
        loss_N, energy = self.family.own_loss(net, self.family.inputs(net, rows), rows.labels)
        (loss_N.sum() * rows.scale).backward()
        return loss_N.detach().double().sum(), rows.column_sums(energy)
