"""EDM2: network, presets, forced weight normalisation; imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mclr_fast.runtime.on_use import on_use

if TYPE_CHECKING:
    from .layers import Block, DropoutKey
    from .network import Precond, force_weight_norm_, normalized_weights, published
    from .presets import PRESETS, Preset
    from .weights import EffectiveWeights

_MODULES = {
    "PRESETS": "presets",
    "Block": "layers",
    "DropoutKey": "layers",
    "EffectiveWeights": "weights",
    "Precond": "network",
    "Preset": "presets",
    "force_weight_norm_": "network",
    "normalized_weights": "network",
    "published": "network",
}
__all__ = [
    "PRESETS",
    "Block",
    "DropoutKey",
    "EffectiveWeights",
    "Precond",
    "Preset",
    "force_weight_norm_",
    "normalized_weights",
    "published",
]

__getattr__ = on_use(__name__, _MODULES)  # presets need no torch
