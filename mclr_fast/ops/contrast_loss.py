"""Public op: loss and energies when dL/d energy is constant."""

from torch import Tensor

from ._checks import check_evaluations
from .reference import contrast_loss as reference


def contrast_loss(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor,
    weight: Tensor,
    coefficients_NR: Tensor,
    *,
    sigma_data: float = 0.5,
    output: str = "network",
) -> tuple[Tensor, Tensor]:
    """Sum of coefficients times energies, and the energies themselves.

    Shapes    as `weighted_sq_error`; coefficients_NR: [N,R] -> (loss [], energy_NR [N,R]).
    Dtypes    any floating pred; results float32.                 Devices   any.
    Gradient  pred, through the loss only; the returned energies carry none.
    Errors    ValueError naming the argument whose shape does not fit.
    Source    eq. 22; (160) with the DSM weight in column 0.
    """
    check_evaluations(pred, x, x_noisy, sigma, weight, output)
    if coefficients_NR.shape != pred.shape[:2]:
        raise ValueError(
            f"coefficients_NR must be {list(pred.shape[:2])} to go with pred, "
            f"not {list(coefficients_NR.shape)}."
        )
    return reference.contrast_loss(pred, x, x_noisy, sigma, weight, coefficients_NR, sigma_data, output)
