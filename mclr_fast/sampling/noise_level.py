"""Which noise levels a step trains at, and what they weigh."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NoiseLevel:
    """ln sigma ~ N(P_mean, P_std^2). Source: EDM (arXiv 2206.00364), Table 1; EDM2, eq. 14-15."""

    P_mean: float
    P_std: float
    sigma_data: float = 0.5

    def sigma(self, z: Tensor) -> Tensor:
        """Standard normals -> noise levels, same shape."""
        return (self.P_mean + self.P_std * z).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
