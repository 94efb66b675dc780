"""Model guidance: the target shifted by the model's own difference of conditional and unconditional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .gft import check_single, replaced_target_output
from .output import ObjectiveOutput
from .table import check_setting


@dataclass(frozen=True)
class ModelGuidance:
    """|D - (x + w sg(D - U))|^2, D the model under c, U the unconditional one.

    The same squared error (R = 1) with x replaced by the target. The fixed point is
    D = U + (C - U) / (1-w), C the conditional denoiser: guidance g = 1 / (1-w) (EDM2's convention,
    1 = none). It is GFT with beta = 1-w: the gradients differ by the factor beta.

    Args:
        w: weight of the shift, in [0, 1); 0 = denoising score matching.

    Source    [Tan+25] Diffusion models without classifier-free guidance (arXiv 2502.12154).
    """

    w: float

    needs: ClassVar[str] = "denoiser"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "w", "at least 0 and below 1", 0 <= self.w < 1)

    @property
    def guidance(self) -> float:
        """The guidance strength g whose denoiser is the fixed point."""
        return 1 / (1 - self.w)

    def target(self, denoised_cond: Tensor, denoised_uncond: Tensor, x: Tensor) -> Tensor:
        """What D is compared with: same shape as x, detached."""
        return (x + self.w * (denoised_cond - denoised_uncond)).detach()

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR: [N,1], w(sigma) |D - target|^2 -> loss_N [N], the same."""
        return replaced_target_output(self, energy_NR)

    def coefficients(self, num_columns: int) -> Tensor:
        """dL/de, float32 [1]: 1."""
        return torch.ones(check_single(self, num_columns))
