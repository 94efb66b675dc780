"""Metrics of generated images, computed in float64 from their features; imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """A metric, from its module: `rows`, which the reports read, needs no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
