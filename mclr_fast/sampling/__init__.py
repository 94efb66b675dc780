"""Samplers as stateless functions: start noise and a denoiser in, images out."""

from .edm import edm_sampler, sigma_steps
from .guidance import Denoiser, Unconditional
from .seeds import seeded_noise

__all__ = [
    "Denoiser",
    "Unconditional",
    "edm_sampler",
    "seeded_noise",
    "sigma_steps",
]
