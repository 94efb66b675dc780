"""Frechet distance between Gaussians fitted to features: FID, FD-DINOv2."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor


def feature_statistics(features: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of `features`.

    Shapes    features: [N,D] -> mu [D], sigma [D,D].   Dtypes   any -> float64, features' device.
    """
    x = torch.as_tensor(features).to(torch.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features of shape {list(x.shape)} have no covariance: need [N >= 2, D].")
    mu = x.mean(dim=0)
    centred = x - mu
    return mu, centred.T @ centred / (len(x) - 1)


def frechet_distance(
    mu1: ArrayLike | Tensor,
    sigma1: ArrayLike | Tensor,
    mu2: ArrayLike | Tensor,
    sigma2: ArrayLike | Tensor,
) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    Shapes    mu1, mu2: [D]; sigma1, sigma2: [D,D].     Dtypes   float64, on the CPU.
    Source    FID (arXiv 1706.08500), eq. 6. With S = R R^T the root's trace is the nuclear norm of
              R1^T R2, which stays accurate where a covariance is singular (N <= D).
    """
    mu1, sigma1, mu2, sigma2 = (
        torch.as_tensor(a).to("cpu", torch.float64) for a in (mu1, sigma1, mu2, sigma2)
    )
    trace_root = torch.linalg.svdvals(_factor(sigma1).T @ _factor(sigma2)).sum()
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * trace_root
    return distance.item()


def _factor(sigma: Tensor) -> Tensor:
    """R with R R^T = sigma, for symmetric positive semi-definite sigma."""
    eigenvalues, eigenvectors = torch.linalg.eigh(sigma)
    return eigenvectors * eigenvalues.clamp(min=0).sqrt()
