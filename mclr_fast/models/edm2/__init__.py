"""EDM2: network, presets, forced weight normalisation."""

from .layers import Block, DropoutKey
from .network import Precond, force_weight_norm_, normalized_weights, published
from .presets import PRESETS, Preset
from .weights import EffectiveWeights

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
