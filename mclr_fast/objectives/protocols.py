"""What training knows of an objective: one protocol for each way of getting a gradient from it."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from .output import ObjectiveOutput


class Objective(Protocol):
    """Any of them.

    Attributes:
        needs: what a family of models must give: "energies", or "denoiser" where outputs are compared.
        separable: whether a row may be cut by columns.
    """

    needs: ClassVar[str]
    separable: ClassVar[bool]


class Linear(Objective, Protocol):
    """dL/de is constant, or is once each negative's ratio is known."""

    def coefficients(self, num_columns: int) -> Tensor | None:
        """dL/de of one row, float32 [R]."""
        ...

    def row_coefficients(self, ratio_NK: Tensor) -> Tensor:
        """dL/de with ratios, float32 [N,R]; only of those that weigh their negatives."""
        ...


class Compared(Objective, Protocol):
    """A function of the policy's energies and the frozen reference's."""

    def __call__(self, energy_NR: Tensor, reference_NR: Tensor | None = None) -> ObjectiveOutput:
        """Both [N,R] -> loss_N [N]."""
        ...

    def column_losses(
        self, energy: Tensor, reference: Tensor, columns: Tensor, num_columns: int, labels: Tensor
    ) -> Tensor:
        """The shares [N,w] of columns [w] of rows of `num_columns`, under labels [N,w]; of separable ones."""
        ...


class ReplacedTarget(Objective, Protocol):
    """The squared error to a target made of x and the model's own stopped outputs."""

    def target(self, denoised_cond: Tensor, denoised_uncond: Tensor, x: Tensor) -> Tensor:
        """What D is compared with: same shape as x, detached."""
        ...

    def coefficients(self, num_columns: int) -> Tensor:
        """dL/de, float32 [1]."""
        ...
