"""Samplers as stateless functions: start noise and a denoiser in, images out."""

from .guidance import Denoiser, Unconditional
from .heun import HeunSampler, edm_sampler, sigma_steps
from .sampler import Sampler
from .seeds import seeded_noise

__all__ = [
    "Denoiser",
    "HeunSampler",
    "Sampler",
    "Unconditional",
    "edm_sampler",
    "seeded_noise",
    "sigma_steps",
]
