"""MCLR with the adaptive weight that makes its minimiser the CFG score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .output import ObjectiveOutput
from .table import check_columns, check_ratio, check_setting, mean_energies


@dataclass(frozen=True)
class WeightedMCLR:
    """mean_k ((1+eta) e_0 - eta a_k e_k), a_k = p_t(x_t|c~_k) / p_t(x_t), constant once it is given.

    The negatives are labels c~ ~ p(c), the own class included. The minimiser is the score of guidance
    g = 1 + eta (EDM2's convention, 1 = none).

    Args:
        eta: strength of the contrast, >= 0.

    Source    eq. 23 and 126.
    """

    eta: float

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "eta", "at least 0", self.eta >= 0)

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR: [N,1+K], column 0 the positive; ratio_NK: [N,K] -> loss_N [N]. Needs no reference."""
        check_columns(self, energy_NR.shape[1])
        ratio_NK = check_ratio(self, ratio_NK, energy_NR.shape[1] - 1)
        return weighted_margin(energy_NR, self.eta, ratio_NK)

    def coefficients(self, num_columns: int) -> None:
        """None: dL/de depends on the ratios; `row_coefficients` has it."""

    def row_coefficients(self, ratio_NK: Tensor) -> Tensor:
        """dL/de, float32 [N,R]: 1 + eta, then -eta a_k / K each."""
        return margin_coefficients(self.eta, check_ratio(self, ratio_NK))


def weighted_margin(energy_NR: Tensor, eta: float, ratio_NK: Tensor) -> ObjectiveOutput:
    """(1+eta) e_0 - eta mean_k a_k e_k, with terms for the log."""
    weighted = (ratio_NK * energy_NR[:, 1:]).mean(dim=1)
    terms = mean_energies(energy_NR) | {"ratio": ratio_NK.mean(dim=1)}
    return ObjectiveOutput((1 + eta) * energy_NR[:, 0] - eta * weighted, terms)


def margin_coefficients(eta: float, ratio_NK: Tensor) -> Tensor:
    """The gradient of `weighted_margin`, float32 [N,1+K]."""
    num_rows, num_negatives = ratio_NK.shape
    positive = torch.full((num_rows, 1), 1 + eta, device=ratio_NK.device)
    return torch.cat([positive, -eta / num_negatives * ratio_NK.float()], dim=1)
