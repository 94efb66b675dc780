"""Metrics of generated images, computed in float64 from their features."""

from .bootstrap import bootstrap_frechet_difference
from .frechet import feature_statistics, frechet_distance
from .inception_score import inception_score
from .precision_recall import precision_recall

__all__ = [
    "bootstrap_frechet_difference",
    "feature_statistics",
    "frechet_distance",
    "inception_score",
    "precision_recall",
]
