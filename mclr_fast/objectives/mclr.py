"""MCLR: an image likelier under its own label than under wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .output import ObjectiveOutput
from .table import SettingError, check_columns, check_setting, mean_energies


@dataclass(frozen=True)
class MCLR:
    """mean_k (e_0 - e_k), plus `dsm_weight` e_0.

    Args:
        dsm_weight: beta of eq. 160, the share of denoising score matching, >= 0; 0 in the paper's runs.
        form: 1 = negatives are wrong labels on the same noisy image (eq. 22, 150); 2 = they are other
            images under the row's label (eq. 12). The formula on the energy table is the same.

    Source    eq. 22 and 150; with dsm_weight eq. 160.
    """

    dsm_weight: float = 0.0
    form: int = 1

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "dsm_weight", "at least 0", self.dsm_weight >= 0)
        if self.form not in (1, 2):
            raise SettingError(self, "form", f"must be 1 (eq. 22) or 2 (eq. 12), not {self.form!r}.")

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR: [N,1+K], column 0 the positive -> loss_N [N]. Needs no reference and no ratio."""
        check_columns(self, energy_NR.shape[1])
        positive, negative = energy_NR[:, 0], energy_NR[:, 1:].mean(dim=1)
        return ObjectiveOutput((1 + self.dsm_weight) * positive - negative, mean_energies(energy_NR))

    def coefficients(self, num_columns: int) -> Tensor:
        """dL/de of one row, float32 [R]: 1 + dsm_weight, then -1/K each."""
        check_columns(self, num_columns)
        coefficients = torch.full((num_columns,), -1 / (num_columns - 1))
        coefficients[0] = 1 + self.dsm_weight
        return coefficients
