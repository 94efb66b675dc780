"""Objectives: pure functions on tables of energies, and what a row's negatives are drawn from."""

from mclr_fast.sampling.noise_level import NoiseLevel

from .cca import CCA
from .ccdpo import CCDPO
from .ddo import DDO
from .denoising import Denoising
from .gft import GFT
from .kl_mclr import KLMCLR
from .mclr import MCLR
from .model_guidance import ModelGuidance
from .output import ObjectiveOutput
from .pairing import pair_labels
from .plus_minus import PlusMinus
from .table import SettingError
from .weighted_mclr import WeightedMCLR

__all__ = [
    "CCA",
    "CCDPO",
    "DDO",
    "GFT",
    "KLMCLR",
    "MCLR",
    "Denoising",
    "ModelGuidance",
    "NoiseLevel",
    "ObjectiveOutput",
    "PlusMinus",
    "SettingError",
    "WeightedMCLR",
    "pair_labels",
]
