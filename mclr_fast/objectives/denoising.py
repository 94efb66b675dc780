"""EDM2's own training loss, for bases and for the control of a fine-tuning run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .output import ObjectiveOutput


@dataclass(frozen=True)
class Denoising:
    """Uncertainty-weighted denoising score matching: e / exp(u) + u C H W.

    In training a family computes its own (`Family.own_loss`): this is EDM2's.

    Source    EDM2 (arXiv 2312.02696), eq. 14, 15, 16, 21, summed over the image's elements.
    """

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __call__(self, energy_N: Tensor, logvar_N: Tensor, num_elements: int) -> ObjectiveOutput:
        """energy_N = lambda(sigma) |D - x|^2 and logvar_N = u(sigma), both [N] -> loss_N [N]."""
        loss = energy_N / logvar_N.exp() + logvar_N * num_elements
        return ObjectiveOutput(loss, {"positive": energy_N.detach()})
