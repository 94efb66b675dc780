"""EDM's Heun sampler in plain torch, as published: one call of the network after another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def noise_levels(num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """EDM (arXiv 2206.00364), eq. 5; the last is 0."""
    ramp = torch.arange(num_steps, dtype=torch.float64) / (num_steps - 1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def heun(net: Callable, noise: Tensor, one_hot: Tensor, levels: Tensor) -> Tensor:
    """Noise [B,C,H,W] to images by EDM's algorithm 2 without churn. net(x, sigma [1], one_hot) -> D."""
    steps = levels.float().to(noise.device)
    x = noise * steps[0]
    for t, t_next in pairwise(steps):
        slope = (x - net(x, t.reshape(1), one_hot)) / t
        x_next = x + (t_next - t) * slope
        if t_next > 0:
            corrected = (x_next - net(x_next, t_next.reshape(1), one_hot)) / t_next
            x_next = x + (t_next - t) * (slope + corrected) / 2
        x = x_next
    return x
