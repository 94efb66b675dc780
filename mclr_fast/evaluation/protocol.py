"""A protocol: feature extractor, reference sets and the arithmetic of one row of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .class_entropy import inception_score
from .frechet import feature_statistics, frechet_distance
from .manifold import precision_recall

Extractor = Callable[[Tensor], tuple[Tensor, Tensor]]
"""uint8 images [B,C,H,W] -> features [B,D], class logits [B,M]."""


class Features(NamedTuple):
    """What an extractor sees in a set of images: features [n,D] and class probabilities [n,M]."""

    features: Tensor
    probs: Tensor


@dataclass(frozen=True)
class Protocol:
    """How generated images are judged.

    Attributes:
        name: what the rows can be compared under.
        extract: the feature extractor; another one (Inception, DINOv2) makes another protocol.
        reference: features of the training set: FD, precision and recall are against it.
        heldout: features of images that were not trained on, for the second FD; may be None.
        neighbors: k of precision and recall.
    """

    name: str
    extract: Extractor
    reference: Features
    heldout: Features | None
    neighbors: int

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 500) -> Features:
        """Features and class probabilities of uint8 images [n,C,H,W], on the CPU."""
        parts = [self.extract(batch) for batch in images.split(batch_size)]
        features = torch.cat([part[0].float().cpu() for part in parts])
        logits = torch.cat([part[1].float().cpu() for part in parts])
        return Features(features, logits.softmax(dim=1))

    def metrics(self, seen: Features, labels: Tensor, *, is_heldout: bool = False) -> dict:
        """FD, held-out FD, Inception Score, precision, recall and class accuracy of one set.

        `labels` [n] are the classes asked for; `is_heldout` leaves out the FD of a set with itself.
        The Inception Score is over all samples at once (one split).
        """
        statistics = feature_statistics(seen.features)
        precision, recall = precision_recall(self.reference.features, seen.features, self.neighbors)
        heldout = None if is_heldout or self.heldout is None else self.heldout.features
        return {
            "fd": self.frechet(statistics, self.reference.features),
            "fd_heldout": None if heldout is None else self.frechet(statistics, heldout),
            "is": inception_score(seen.probs, splits=1)[0],
            "precision": precision,
            "recall": recall,
            "accuracy": (seen.probs.argmax(dim=1) == labels.cpu()).double().mean().item(),
        }

    @staticmethod
    def frechet(statistics: tuple[Tensor, Tensor], reference: Tensor) -> float:
        """FD between (mu, sigma) and the features of a reference set."""
        return float(frechet_distance(*statistics, *feature_statistics(reference)))
