"""EDM's second-order Heun sampler."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .guidance import Denoiser, guided_denoiser


def sigma_steps(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise levels from t_0 = sigma_max to t_(N-1) = sigma_min, even in t^(1/rho), then t_N = 0.

    Shapes    -> [num_steps + 1].                   Dtypes   float64, on the CPU.
    Source    EDM (arXiv 2206.00364), eq. 5.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} cannot span sigma_max..sigma_min: use 2 or more.")
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    steps = torch.linspace(*ends, num_steps, dtype=torch.float64) ** rho
    return torch.cat([steps, steps.new_zeros(1)])


@torch.no_grad()
def edm_sampler(
    net: Denoiser,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    gnet: Denoiser | None = None,
    guidance: float = 1.0,
    num_steps: int = 32,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    randn_like: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Solve the probability-flow ODE from `noise` to images, with optional churn (added noise).

    Shapes    noise: [N,C,H,W], standard normal; labels: as `net` takes them -> [N,C,H,W].
    Dtypes    the state is noise.dtype (float32 or float64); nets get float32 x and 0-dim sigma.
    Cost      2 num_steps - 1 calls of `net`, and as many of `gnet` unless guidance is 1; no sync.
    Source    EDM (arXiv 2206.00364), algorithm 2, with its deterministic case S_churn = 0.

    `randn_like` draws the churn noise (default torch.randn_like), once for each step whose t lies
    in [S_min, S_max].
    """
    denoiser = guided_denoiser(net, gnet, guidance)
    randn_like = randn_like or torch.randn_like
    max_gamma = min(S_churn / num_steps, math.sqrt(2) - 1)

    def slope(x: Tensor, t: float) -> Tensor:
        sigma = torch.full((), t, dtype=torch.float32, device=x.device)
        return (x - denoiser(x.float(), sigma, labels).to(x.dtype)) / t

    # The time steps stay Python floats, so that no step waits for the device.
    steps = sigma_steps(num_steps, sigma_min, sigma_max, rho).tolist()
    x_next = noise * steps[0]
    for t_cur, t_next in pairwise(steps):
        t_hat, x_hat = t_cur, x_next
        if max_gamma > 0 and S_min <= t_cur <= S_max:
            t_hat = t_cur * (1 + max_gamma)
            x_hat = x_next + math.sqrt(t_hat**2 - t_cur**2) * S_noise * randn_like(x_next)

        # Euler step, then the trapezoidal correction except on the last step.
        d_cur = slope(x_hat, t_hat)
        x_next = x_hat + (t_next - t_hat) * d_cur
        if t_next > 0:
            d_prime = slope(x_next, t_next)
            x_next = x_hat + (t_next - t_hat) * (d_cur + d_prime) / 2
    return x_next
