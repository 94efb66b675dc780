"""The p+/p- form: away from one distribution's samples, towards another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .output import ObjectiveOutput
from .table import check_columns, check_ratio, check_setting
from .weighted_mclr import margin_coefficients, weighted_margin


@dataclass(frozen=True)
class PlusMinus:
    """(1+eta) e_0 - eta mean_k a_k e_k: a row is a sample of p+ and K of p-, under the row's label.

    a_k = p+_t(x_t) / p-_t(x_t) of the k-th sample of p-; without ratios a = 1. With p+ and p- the samples
    of a model and of an earlier one it is autoguidance, with p+ the better samples of one model CFGRL.

    Args:
        eta: strength of the contrast, >= 0.

    Source    eq. 141 with ratios (its minimiser is the guided score, g = 1 + eta: Corollary 3); eq. 142
              without.
    """

    eta: float

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "eta", "at least 0", self.eta >= 0)

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR: [N,1+K], column 0 of p+; ratio_NK: [N,K] or None -> loss_N [N]. Needs no reference."""
        check_columns(self, energy_NR.shape[1])
        negatives = energy_NR[:, 1:]
        ratio_NK = torch.ones_like(negatives) if ratio_NK is None else ratio_NK
        return weighted_margin(energy_NR, self.eta, check_ratio(self, ratio_NK, negatives.shape[1]))

    def coefficients(self, num_columns: int) -> Tensor:
        """dL/de of one row without ratios (eq. 142), float32 [R]: 1 + eta, then -eta/K each."""
        check_columns(self, num_columns)
        return margin_coefficients(self.eta, torch.ones(1, num_columns - 1))[0]

    def row_coefficients(self, ratio_NK: Tensor) -> Tensor:
        """dL/de with ratios (eq. 141), float32 [N,R]: 1 + eta, then -eta a_k / K each."""
        return margin_coefficients(self.eta, check_ratio(self, ratio_NK))
