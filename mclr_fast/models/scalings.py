"""How a denoiser is made of a network: D(x; sigma, c) = c_skip x + c_out F(c_in x; c_noise, c).

x = x_0 + sigma eps. One formula for EDM, for DDPM's noise prediction and for flow matching, each with the law
by which training draws sigma. An energy is |D - x_0|^2 / c_out^2: the squared error of F itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from mclr_fast.data import rng
from mclr_fast.sampling.noise_level import NoiseLevel


class Scalings(Protocol):
    """Functions of noise levels sigma, float32 [n] -> float32 [n], and their law.

    Attributes: noise: ln sigma's mean and standard deviation in training, for what is trained beside it.
    """

    noise: NoiseLevel

    def sigma(self, seed: int, position: Tensor) -> Tensor:
        """The noise level of each row in training, keyed by (seed, position int64 [n])."""
        ...

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / c_out^2."""
        ...

    def c_skip(self, sigma: Tensor) -> Tensor:
        """What of x is in D."""
        ...

    def c_out(self, sigma: Tensor) -> Tensor:
        """What of F is in D."""
        ...

    def c_in(self, sigma: Tensor) -> Tensor:
        """What of x the network sees."""
        ...

    def c_noise(self, sigma: Tensor) -> Tensor:
        """How the network is told of sigma."""
        ...


@dataclass(frozen=True)
class EDM:
    """EDM's preconditioning. Source: EDM (arXiv 2206.00364), Table 1."""

    noise: NoiseLevel

    def sigma(self, seed: int, position: Tensor) -> Tensor:
        """exp(P_mean + P_std z)."""
        return self.noise.sigma(rng.sigma_normals(seed, position))

    def weight(self, sigma: Tensor) -> Tensor:
        """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
        return self.noise.weight(sigma)

    def c_skip(self, sigma: Tensor) -> Tensor:
        """sigma_data^2 / (sigma^2 + sigma_data^2)."""
        return self.noise.sigma_data**2 / (sigma**2 + self.noise.sigma_data**2)

    def c_out(self, sigma: Tensor) -> Tensor:
        """sigma sigma_data / sqrt(sigma^2 + sigma_data^2)."""
        return sigma * self.noise.sigma_data / (sigma**2 + self.noise.sigma_data**2).sqrt()

    def c_in(self, sigma: Tensor) -> Tensor:
        """1 / sqrt(sigma^2 + sigma_data^2)."""
        return (sigma**2 + self.noise.sigma_data**2).rsqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        """ln(sigma) / 4."""
        return sigma.log() / 4


@dataclass(frozen=True)
class DDPM:
    """DDPM's noise prediction: F is eps, on x_t = sqrt(abar_t) x; steps t of a linear beta schedule.

    sigma_t = sqrt((1 - abar_t) / abar_t). Training draws t evenly, so sigma lies on the grid; between its
    levels t is linear in ln sigma, and outside clamped.
    Source    DDPM (arXiv 2006.11239), eq. 4 and 14.
    """

    num_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @cached_property
    def levels(self) -> Tensor:
        """sigma_t, float64 [num_steps], rising."""
        betas = torch.linspace(self.beta_start, self.beta_end, self.num_steps, dtype=torch.float64)
        kept = (1 - betas).cumprod(0)
        return ((1 - kept) / kept).sqrt()

    @cached_property
    def noise(self) -> NoiseLevel:
        """The mean and standard deviation of the levels' logarithms."""
        logs = self.levels.log()
        return NoiseLevel(logs.mean().item(), logs.std(correction=0).item())

    def sigma(self, seed: int, position: Tensor) -> Tensor:
        """A level of the grid, each as probable."""
        step = (rng.sigma_uniforms(seed, position) * self.num_steps).long()
        return self.levels[step].float()

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / sigma^2."""
        return sigma**-2

    def c_skip(self, sigma: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        """-sigma."""
        return -sigma

    def c_in(self, sigma: Tensor) -> Tensor:
        """sqrt(abar_t) = 1 / sqrt(1 + sigma^2)."""
        return (1 + sigma**2).rsqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        """The step t, fractional between two."""
        logs = self.levels.log().to(sigma.device)
        wanted = sigma.double().log()
        after = torch.searchsorted(logs, wanted).clamp(1, self.num_steps - 1)
        low, high = logs[after - 1], logs[after]
        step = after - 1 + ((wanted - low) / (high - low)).clamp(0, 1)
        return step.float()


@dataclass(frozen=True)
class Flow:
    """Flow matching's velocity: F is v = eps - x_0, on x_t = (1 - t) x, t = sigma / (1 + sigma).

    t = 1 is noise. Training draws t evenly: ln sigma from the standard logistic law.
    Source    flow matching (arXiv 2210.02747) with linear paths; SiT (arXiv 2401.08740), section 2.
    """

    noise = NoiseLevel(0.0, math.pi / math.sqrt(3))  # of the logistic law

    def sigma(self, seed: int, position: Tensor) -> Tensor:
        """t / (1 - t), t uniform; never 0."""
        t = rng.sigma_uniforms(seed, position).clamp(min=2.0**-24)
        return t / (1 - t)

    def weight(self, sigma: Tensor) -> Tensor:
        """((1 + sigma) / sigma)^2."""
        return ((1 + sigma) / sigma) ** 2

    def c_skip(self, sigma: Tensor) -> Tensor:
        """1 / (1 + sigma)."""
        return 1 / (1 + sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        """-sigma / (1 + sigma)."""
        return -sigma / (1 + sigma)

    def c_in(self, sigma: Tensor) -> Tensor:
        """1 - t = 1 / (1 + sigma)."""
        return 1 / (1 + sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        """t = sigma / (1 + sigma)."""
        return sigma / (1 + sigma)
