"""VAR (arXiv 2404.02905): transformer, VQVAE, presets."""

from .layers import Block
from .network import VAR
from .presets import PRESETS, Preset
from .quantizer import Quantizer
from .vqvae import VQVAE

__all__ = ["PRESETS", "VAR", "VQVAE", "Block", "Preset", "Quantizer"]
