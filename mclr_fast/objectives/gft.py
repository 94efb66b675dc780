"""Guidance-free training: the sampling model as one part of the conditional denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .output import ObjectiveOutput
from .table import check_setting


@dataclass(frozen=True)
class GFT:
    """|beta D + (1-beta) sg(U) - x|^2, D the sampling model under c, U the unconditional one.

    Written as beta^2 |D - target|^2 with target = (x - (1-beta) U) / beta, so that the same squared error
    (R = 1, x replaced by the target) serves. The fixed point is D = U + (C - U) / beta, C the conditional
    denoiser: guidance g = 1 / beta (EDM2's convention, 1 = none).

    Args:
        beta: share of the sampling model, in (0, 1]; 1 = denoising score matching.

    Source    [Che+25a] Visual Generation Without Guidance, as in the paper's section 5.1 and H.
    """

    beta: float

    needs: ClassVar[str] = "denoiser"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "beta", "above 0 and at most 1", 0 < self.beta <= 1)

    @property
    def guidance(self) -> float:
        """The guidance strength g whose denoiser is the fixed point."""
        return 1 / self.beta

    def target(self, denoised_cond: Tensor, denoised_uncond: Tensor, x: Tensor) -> Tensor:
        """What D is compared with: same shape as x, detached. denoised_cond is not used."""
        return ((x - (1 - self.beta) * denoised_uncond) / self.beta).detach()

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR: [N,1], w(sigma) |D - target|^2 -> loss_N [N], beta^2 times it."""
        return replaced_target_output(self, energy_NR)

    def coefficients(self, num_columns: int) -> Tensor:
        """dL/de, float32 [1]: beta^2."""
        return torch.full((check_single(self, num_columns),), self.beta**2)


def check_single(objective, num_columns: int) -> int:
    """ValueError unless R = 1: an objective that replaces the target has no negatives."""
    if num_columns != 1:
        raise ValueError(
            f"{type(objective).__name__} has no negatives: R must be 1, not {num_columns}; evaluate the "
            "image's own label alone."
        )
    return num_columns


def replaced_target_output(objective, energy_NR: Tensor) -> ObjectiveOutput:
    """An objective's one coefficient times its one column."""
    (coefficient,) = objective.coefficients(energy_NR.shape[1]).tolist()
    loss_N = coefficient * energy_NR[:, 0]
    return ObjectiveOutput(loss_N, {"positive": loss_N.detach()})
