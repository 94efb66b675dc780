"""VAR (arXiv 2404.02905): transformer, VQVAE, presets; imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mclr_fast.runtime.on_use import on_use

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

__getattr__ = on_use(__name__, _MODULES)  # presets need no torch
