"""Mean and covariance of features that come in batches, on several ranks: no feature is kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mclr_fast.runtime.process.ranks import Ranks

from .frechet import frechet_distance


class Moments(NamedTuple):
    """Of `count` feature vectors: mean mu [D] and unbiased covariance sigma [D,D], float64 on the CPU."""

    count: int
    mu: Tensor
    sigma: Tensor

    def frechet(self, other: Moments) -> float:
        """The Frechet distance between the Gaussians of these moments."""
        return frechet_distance(self.mu, self.sigma, other.mu, other.sigma)


class MomentSums:
    """Sums of f and f f^T in float64, on the rank's device.

    Source    EDM2: sigma = (sum f f^T - N mu mu^T) / (N - 1). The order of summing changes float64's last
              digits alone, so FD does not depend on batches or ranks.
    """

    def __init__(self, num_features: int, device: torch.device):
        self.count = 0
        self._sum = torch.zeros(num_features, dtype=torch.float64, device=device)
        self._products = torch.zeros(num_features, num_features, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """features [B,D], B may be 0."""
        wide = features.to(self._sum.device, torch.float64)
        self.count += len(wide)
        self._sum += wide.sum(dim=0)
        self._products.addmm_(wide.T, wide)

    def moments(self, ranks: Ranks) -> Moments:
        """Of what all ranks added, at least 2; all ranks call it, once."""
        count = torch.tensor([self.count], dtype=torch.float64, device=self._sum.device)
        count, total, products = map(ranks.sum, (count, self._sum, self._products))
        n = int(count)
        mu = total / n
        sigma = (products - n * torch.outer(mu, mu)) / (n - 1)
        return Moments(n, mu.cpu(), sigma.cpu())
