"""CC-DPO: an image of the class preferred to images of other classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from .output import ObjectiveOutput
from .table import check_columns, check_reference, check_setting, mean_energies


@dataclass(frozen=True)
class CCDPO:
    """mean_k -log sigmoid(beta (-(e_0 - r_0) + (e_k - r_k))), r the frozen reference's energies.

    Its negatives are images under the row's label, with the positive's sigma and eps (Algorithm 2).

    Args:
        beta: strength of the pull to the reference, > 0; the optimum is p_ref (p(x|c)/p(x))^(1/beta) / Z.

    Source    eq. 156, with energies for w(sigma)|D - x|^2; eq. 19 for exact likelihoods.
    """

    beta: float

    needs: ClassVar[str] = "energies"
    separable: ClassVar[bool] = False  # every term holds the positive: a row stays together

    def __post_init__(self):
        check_setting(self, "beta", "above 0", self.beta > 0)

    def __call__(
        self, energy_NR: Tensor, reference_NR: Tensor | None = None, *, ratio_NK: Tensor | None = None
    ) -> ObjectiveOutput:
        """energy_NR, reference_NR: [N,1+K], column 0 the positive -> loss_N [N]. Needs no ratio.

        terms["margin"] is the mean implicit reward margin, the argument of the sigmoid.
        """
        check_columns(self, energy_NR.shape[1])
        gap = energy_NR - check_reference(self, energy_NR, reference_NR)
        margin = self.beta * (gap[:, 1:] - gap[:, :1])
        terms = mean_energies(energy_NR) | {"margin": margin.detach().mean(dim=1)}
        return ObjectiveOutput(-logsigmoid(margin).mean(dim=1), terms)

    def coefficients(self, num_columns: int) -> None:
        """None: dL/de depends on the energies."""
