"""DDO: real images told from the reference model's own samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .cca import discriminator_losses, discriminator_output
from .output import ObjectiveOutput
from .table import check_setting


@dataclass(frozen=True)
class DDO:
    """-log sigmoid(-beta (e_0 - r_0)) - alpha mean_k log sigmoid(beta (e_k - r_k)).

    CCA's form; its negatives are the reference model's samples of the row's class.

    Args:
        beta: scale of the log ratio, > 0.
        alpha: weight of the samples, > 0.

    Source    [Zhe+25] Direct Discriminative Optimization, as in the paper's section H; eq. 159.
    """

    beta: float
    alpha: float

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = True

    def __post_init__(self):
        check_setting(self, "beta", "above 0", self.beta > 0)
        check_setting(self, "alpha", "above 0", self.alpha > 0)

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR, reference_NR: [N,1+K], column 0 the real image -> loss_N [N]. Needs no ratio."""
        return discriminator_output(self, energy_NR, reference_NR)

    def column_losses(
        self,
        energy: Tensor,
        reference: Tensor,
        columns: Tensor,
        num_columns: int,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The shares [N,w] of the columns [w] of rows of `num_columns`; all shares sum to loss_N."""
        return discriminator_losses(self, self.alpha, energy, reference, columns, num_columns)

    def coefficients(self, num_columns: int) -> None:
        """None: dL/de depends on the energies."""
