"""Metrics of generated images, computed in float64 from their features; imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mclr_fast.runtime.on_use import on_use

if TYPE_CHECKING:
    from .extractors.dinov2 import DINOv2
    from .metrics.bootstrap import bootstrap_frechet_difference
    from .metrics.class_entropy import inception_score
    from .metrics.frechet import feature_statistics, frechet_distance
    from .metrics.manifold import precision_recall

__all__ = [
    "DINOv2",
    "bootstrap_frechet_difference",
    "feature_statistics",
    "frechet_distance",
    "inception_score",
    "precision_recall",
]

_MODULES = {
    "DINOv2": "extractors.dinov2",
    "bootstrap_frechet_difference": "metrics.bootstrap",
    "feature_statistics": "metrics.frechet",
    "frechet_distance": "metrics.frechet",
    "inception_score": "metrics.class_entropy",
    "precision_recall": "metrics.manifold",
}

__getattr__ = on_use(__name__, _MODULES)  # `rows`, which the reports read, needs no torch
