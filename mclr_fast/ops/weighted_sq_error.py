"""Public op: energies of a minibatch of evaluations."""

from torch import Tensor

from ._checks import check_evaluations
from .reference import weighted_sq_error as reference


def weighted_sq_error(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor,
    weight: Tensor,
    *,
    sigma_data: float = 0.5,
    output: str = "network",
) -> Tensor:
    """Energies w(sigma) |D - x|^2 of N images under R labels.

    Shapes    pred: [N,R,C,H,W], the network's raw output F (output="network": preconditioned here
              with x_noisy, sigma and sigma_data) or the denoised image D itself (output="denoised");
              x, x_noisy: [N,C,H,W], shared by the row, or [N,R,C,H,W]; sigma, weight: [N] -> [N,R].
    Dtypes    any floating pred; sums and result float32.         Devices   any.
    Gradient  pred.                Cost      reads pred, x and, for F, x_noisy once; ~6 FLOPs an element.
    Errors    ValueError naming the argument whose shape does not fit.
    Source    eq. 22 and 151; preconditioning: EDM (arXiv 2206.00364), Table 1.
    """
    check_evaluations(pred, x, x_noisy, sigma, weight, output)
    return reference.weighted_sq_error(pred, x, x_noisy, sigma, weight, sigma_data, output)
