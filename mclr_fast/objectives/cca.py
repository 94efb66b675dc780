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
        label_dropout: how often a row is without labels, in [0, 1). Its negatives are matched pairs then, and
            the loss is as `with_matched` has it.

    Source    eq. 159; with label dropout CCA's release (arXiv 2410.09347).
    """

    beta: float
    lambda_: float
    pairing: str = "images"
    label_dropout: float = 0.0

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
        """energy_NR, reference_NR: [N,1+K], column 0 the positive -> loss_N [N]. Needs no ratio.

        ValueError with label_dropout: the loss is of the labels too, which `with_matched` or `column_losses`
        are told.
        """
        return discriminator_output(self, energy_NR, reference_NR)

    def column_losses(
        self,
        energy: Tensor,
        reference: Tensor,
        columns: Tensor,
        num_columns: int,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The shares [N,w] of the columns [w] of rows of `num_columns`; all shares sum to loss_N.

        labels: int64 [N,w], below 0 where they were dropped; only with label_dropout.
        """
        if self.label_dropout == 0:
            return discriminator_losses(self, self.lambda_, energy, reference, columns, num_columns)
        if labels is None:
            raise ValueError(
                f"CCA: with label_dropout = {self.label_dropout} the loss depends on which labels were "
                "dropped: call with_matched(energy_NR, reference_NR, matched_NK), or, as training does, "
                "column_losses with the rows' labels, below 0 where dropped."
            )
        return self._with_matched(energy, reference, columns, num_columns, labels < 0)

    def with_matched(self, energy_NR: Tensor, reference_NR: Tensor, matched_NK: Tensor) -> Tensor:
        """The loss [N] where some negatives are matched pairs after all: they count as positives of weight 1.

        It is divided by max(lambda, 1). matched_NK: bool, a label that was dropped (with the positive's), or
        that is the image's own.

        Source    CCA's release (arXiv 2410.09347), uncond_ratio > 0.
        """
        num_columns = energy_NR.shape[1]
        columns = torch.arange(num_columns, device=energy_NR.device)
        matched_NR = torch.cat([torch.ones_like(matched_NK[:, :1]), matched_NK], dim=1)
        return self._with_matched(energy_NR, reference_NR, columns, num_columns, matched_NR).sum(dim=1)

    def _with_matched(
        self, energy: Tensor, reference: Tensor, columns: Tensor, num_columns: int, matched: Tensor
    ) -> Tensor:
        """The shares of columns, of which some are matched pairs: bool [N,w], column 0's being one anyway."""
        args = energy, reference, columns, num_columns
        shares = discriminator_losses(self, self.lambda_, *args)
        of_matched = discriminator_losses(self, 1.0, *args, sign=-1.0)
        return torch.where(matched & (columns > 0), of_matched, shares) / max(self.lambda_, 1)

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
    *,
    sign: float = 1.0,
) -> Tensor:
    """-log sigmoid(-+beta (e - r)) of column 0 and of the others, these times negative_weight / K.

    energy, reference: [N,w], the columns `columns` (int64 [w]) of rows of `num_columns` -> [N,w]. sign: -1
    takes the others for what column 0 is.
    """
    check_columns(objective, num_columns)
    if energy.shape[1] != len(columns):
        raise ValueError(
            f"{type(objective).__name__}: energy has {energy.shape[1]} columns, but {len(columns)} of "
            f"{num_columns} are named."
        )
    gap = energy - check_reference(objective, energy, reference)
    is_positive = columns == 0
    signs, weight = torch.full_like(gap[0], sign), torch.ones_like(gap[0])
    signs = signs.where(~is_positive, -1)
    weight = weight.where(is_positive, negative_weight / (num_columns - 1))
    return -weight * logsigmoid(signs * objective.beta * gap)
