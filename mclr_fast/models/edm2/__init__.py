"""EDM2: network, presets, forced weight normalisation."""

from .layers import DropoutKey
from .network import Precond, force_weight_norm_, normalized_weights
from .presets import PRESETS, Preset

__all__ = [
    "PRESETS",
    "DropoutKey",
    "Precond",
    "Preset",
    "force_weight_norm_",
    "normalized_weights",
]
