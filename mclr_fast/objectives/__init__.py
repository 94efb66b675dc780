"""Objectives: pure functions on tables of energies, and the tuples they are evaluated on."""

from .denoising import Denoising
from .mclr import MCLR
from .noise_level import NoiseLevel
from .output import ObjectiveOutput
from .pairing import pair_labels

__all__ = ["MCLR", "Denoising", "NoiseLevel", "ObjectiveOutput", "pair_labels"]
