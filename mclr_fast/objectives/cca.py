"""CCA: the model's likelihood ratio to the reference as a classifier of matched pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .output import ObjectiveOutput
from .table import SettingError, check_columns, check_reference, check_setting, mean_energies

PAIRINGS = ("images", "labels")


@dataclass(frozen=True)
class CCA:
    """-log sigmoid(-beta (e_0 - r_0)) - lambda mean_k log sigmoid(beta (e_k - r_k)).

    Args:
        beta: strength of the pull to the reference, > 0.
        lambda_: weight of the negatives, > 0.
        pairing: what a negative is. "images" (Algorithm 2): another image under the row's label;
            "labels": a wrong label on the row's image. One formula; for uniform classes one expectation.

    Source    eq. 159.
    """

    beta: float
    lambda_: float
    pairing: str = "images"

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "beta", "above 0", self.beta > 0)
        check_setting(self, "lambda_", "above 0", self.lambda_ > 0)
        if self.pairing not in PAIRINGS:
            raise SettingError(
                self, "pairing", f"must be one of {', '.join(PAIRINGS)}, not {self.pairing!r}."
            )

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR, reference_NR: [N,1+K], column 0 the positive -> loss_N [N]. Needs no ratio."""
        return discriminator_output(self, energy_NR, reference_NR)

    def column_losses(self, energy: Tensor, reference: Tensor, columns: Tensor, num_columns: int) -> Tensor:
        """The shares [N,w] of the columns [w] of rows of `num_columns`; all shares sum to loss_N."""
        return discriminator_losses(self, self.lambda_, energy, reference, columns, num_columns)

    def with_matched(self, energy_NR: Tensor, reference_NR: Tensor, matched_NK: Tensor) -> Tensor:
        """The loss [N] where some negatives are matched pairs after all: they count as positives of weight 1.

        It is divided by max(lambda, 1). matched_NK: bool, a label that was dropped (with the positive's), or
        that is the image's own.

        Source    CCA's release (arXiv 2410.09347), uncond_ratio > 0.
        """
        check_columns(self, energy_NR.shape[1])
        gap = self.beta * (energy_NR - check_reference(self, energy_NR, reference_NR))
        negative = torch.where(matched_NK, -logsigmoid(-gap[:, 1:]), -self.lambda_ * logsigmoid(gap[:, 1:]))
        return (negative.mean(dim=1) - logsigmoid(-gap[:, 0])) / max(self.lambda_, 1)

    def coefficients(self, num_columns: int) -> None:
        """None: dL/de depends on the energies."""


def discriminator_output(objective, energy_NR: Tensor, reference_NR: Tensor | None) -> ObjectiveOutput:
    """An objective's loss as the sum of its `column_losses`, with terms for the log."""
    num_columns = energy_NR.shape[1]
    reference_NR = check_reference(objective, energy_NR, reference_NR)
    columns = torch.arange(num_columns, device=energy_NR.device)
    loss_NR = objective.column_losses(energy_NR, reference_NR, columns, num_columns)
    gap = mean_energies(energy_NR - reference_NR)
    terms = {f"{name}_gap": value for name, value in gap.items()}
    return ObjectiveOutput(loss_NR.sum(dim=1), mean_energies(energy_NR) | terms)


def discriminator_losses(
    objective,
    negative_weight: float,
    energy: Tensor,
    reference: Tensor,
    columns: Tensor,
    num_columns: int,
) -> Tensor:
    """-log sigmoid(-+beta (e - r)) of column 0 and of the others, these times negative_weight / K.

    energy, reference: [N,w], the columns `columns` (int64 [w]) of rows of `num_columns` -> [N,w].
    """
    check_columns(objective, num_columns)
    if energy.shape[1] != len(columns):
        raise ValueError(
            f"{type(objective).__name__}: energy has {energy.shape[1]} columns, but {len(columns)} of "
            f"{num_columns} are named."
        )
    gap = energy - check_reference(objective, energy, reference)
    is_positive = columns == 0
    sign, weight = 1 - 2 * is_positive.to(gap.dtype), torch.ones_like(gap[0])
    weight = weight.where(is_positive, negative_weight / (num_columns - 1))
    return -weight * logsigmoid(sign * objective.beta * gap)
