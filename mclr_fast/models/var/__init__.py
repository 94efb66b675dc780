"""VAR (arXiv 2404.02905): transformer, VQVAE, presets; imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .layers import Block
    from .network import VAR
    from .presets import PRESETS, Preset
    from .quantizer import Quantizer
    from .vqvae import VQVAE

_MODULES = {
    "PRESETS": "presets",
    "VAR": "network",
    "VQVAE": "vqvae",
    "Block": "layers",
    "Preset": "presets",
    "Quantizer": "quantizer",
}
__all__ = ["PRESETS", "VAR", "VQVAE", "Block", "Preset", "Quantizer"]


def __getattr__(name: str) -> Any:
    """What the family offers, from its module: presets need no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
