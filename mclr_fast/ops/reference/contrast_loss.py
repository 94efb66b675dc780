"""Loss of an objective whose dL/d energy is known beforehand."""

from torch import Tensor

from .weighted_sq_error import weighted_sq_error


def contrast_loss(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    coefficients: Tensor,
    sigma_data: float,
    output: str,
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(sum of coefficients * energies, energies without gradient); coefficients: [N,R]. Eq. 22."""
    energy = weighted_sq_error(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out)
    return (coefficients * energy).sum(), energy.detach()
