"""Samplers as stateless functions: start noise and a denoiser in, images out; imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mclr_fast.runtime.on_use import on_use

if TYPE_CHECKING:
    from .autoregressive import AutoregressiveSampler
    from .guidance import Denoiser, Unconditional
    from .heun import HeunSampler, edm_sampler, sigma_steps
    from .sampler import Sampler
    from .seeds import seeded_labels, seeded_noise

__all__ = [
    "AutoregressiveSampler",
    "Denoiser",
    "HeunSampler",
    "Sampler",
    "Unconditional",
    "edm_sampler",
    "seeded_labels",
    "seeded_noise",
    "sigma_steps",
]

_MODULES = {
    "AutoregressiveSampler": "autoregressive",
    "Denoiser": "guidance",
    "HeunSampler": "heun",
    "Sampler": "sampler",
    "Unconditional": "guidance",
    "edm_sampler": "heun",
    "seeded_labels": "seeds",
    "seeded_noise": "seeds",
    "sigma_steps": "heun",
}

__getattr__ = on_use(__name__, _MODULES)  # `noise_level`, which objectives take, needs no ops
