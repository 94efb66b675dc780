"""EDM2: network, presets, forced weight normalisation; imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """What the family offers, from its module: presets need no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
