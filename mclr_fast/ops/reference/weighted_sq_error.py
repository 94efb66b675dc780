"""Energies of a minibatch of evaluations."""

from torch import Tensor


def weighted_sq_error(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    sigma_data: float,
    output: str,
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> Tensor:
    """energy = weight |D - x|^2, summed over C, H, W in float32 (the ELBO term of eq. 151).

    Shapes    pred: [N,R,C,H,W]; x, x_noisy: [N,C,H,W] or [N,R,C,H,W]; weight, and sigma or c_skip and
              c_out: [N] -> [N,R].
    """
    pred = pred.float()
    x, x_noisy = (v if v.ndim == 5 else v[:, None] for v in (x, x_noisy))
    if output == "network":
        if sigma is not None:
            total = sigma**2 + sigma_data**2
            c_skip, c_out = sigma_data**2 / total, sigma * sigma_data / total.sqrt()
        c_skip, c_out = (c.view(-1, 1, 1, 1, 1) for c in (c_skip, c_out))
        pred = c_skip * x_noisy + c_out * pred
    return (pred - x).square().flatten(2).sum(2) * weight[:, None]
