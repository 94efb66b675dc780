"""MCLR held near its base by samples of the base: the KL-regularised form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .output import ObjectiveOutput
from .table import check_columns, check_setting, mean_energies


@dataclass(frozen=True)
class KLMCLR:
    """e_ref + eta mean_k (e_0 - e_k), where e_ref is the energy of a sample of the base under c.

    Args:
        eta: strength of the contrast, >= 0. Up to 1 it is the share of eq. 18's error model that
            Corollary 1 undoes.

    Source    eq. 13: -E log p over samples of p_ref is D_KL(p_ref || p) up to a constant.
    """

    eta: float

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "eta", "at least 0", self.eta >= 0)

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR: [N,2+K], the positive, K negatives, the base's sample -> loss_N [N].

        All are energies of the policy: it needs no reference's energies and no ratio.
        """
        check_columns(self, energy_NR.shape[1], others=2)
        contrast, sample = energy_NR[:, :-1], energy_NR[:, -1]
        loss_N = sample + self.eta * (contrast[:, 0] - contrast[:, 1:].mean(dim=1))
        return ObjectiveOutput(loss_N, mean_energies(contrast) | {"sample": sample.detach()})

    def coefficients(self, num_columns: int) -> Tensor:
        """dL/de of one row, float32 [R], R = 2+K: eta, then -eta/K each, then 1."""
        check_columns(self, num_columns, others=2)
        coefficients = torch.full((num_columns,), -self.eta / (num_columns - 2))
        coefficients[0], coefficients[-1] = self.eta, 1
        return coefficients
