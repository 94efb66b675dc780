"""Loss of an objective whose dL/d energy is known beforehand."""

from torch import Tensor

from .weighted_sq_error import weighted_sq_error


def contrast_loss(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor,
    weight: Tensor,
    coefficients: Tensor,
    sigma_data: float,
    output: str,
) -> tuple[Tensor, Tensor]:
    """(sum of coefficients * energies, energies without gradient); coefficients: [N,R]. Eq. 22."""
    energy = weighted_sq_error(pred, x, x_noisy, sigma, weight, sigma_data, output)
    return (coefficients * energy).sum(), energy.detach()
