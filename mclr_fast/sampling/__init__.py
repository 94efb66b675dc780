"""Samplers as stateless functions: start noise and a denoiser in, images out; imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """A public name, from its module: `noise_level`, which objectives take, needs no ops."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
