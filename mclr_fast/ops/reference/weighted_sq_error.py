"""Energies of a minibatch of evaluations."""

from torch import Tensor


def weighted_sq_error(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor,
    weight: Tensor,
    sigma_data: float,
    output: str,
) -> Tensor:
    """energy = weight |D - x|^2, summed over C, H, W in float32 (the ELBO term of eq. 151).

    Shapes    pred: [N,R,C,H,W]; x, x_noisy: [N,C,H,W] or [N,R,C,H,W]; sigma, weight: [N] -> [N,R].
    """
    pred = pred.float()
    x, x_noisy = (v if v.ndim == 5 else v[:, None] for v in (x, x_noisy))
    if output == "network":
        sigma = sigma.view(-1, 1, 1, 1, 1)
        total = sigma**2 + sigma_data**2
        pred = sigma_data**2 / total * x_noisy + sigma * sigma_data / total.sqrt() * pred
    return (pred - x).square().flatten(2).sum(2) * weight[:, None]
