"""A protocol: feature extractor, reference sets and the arithmetic of one row of the table."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .features import Extractor, FeatureCollector, Features
from .metrics.bootstrap import bootstrap_frechet_difference
from .metrics.class_entropy import inception_score
from .metrics.frechet import feature_statistics, frechet_distance
from .metrics.manifold import precision_recall
from .rows import Metrics


@dataclass(frozen=True)
class Protocol:
    """How generated images are judged.

    Attributes:
        name: what the rows can be compared under.
        extract: the feature extractor; another one (Inception, DINOv2) makes another protocol.
        reference: features of the training set: FD, precision and recall are against it.
        heldout: features of images that were not trained on, for the second FD and the row of real images;
            heldout_labels: their classes, int64 [n].
        neighbors: k of precision and recall.
    """

    name: str
    extract: Extractor
    reference: Features
    heldout: Features
    heldout_labels: Tensor
    neighbors: int

    def collector(self) -> FeatureCollector:
        """What takes up the images that are to be judged; `metrics` takes what it gathers."""
        return FeatureCollector(self.extract)

    def metrics(self, seen: Features, labels: Tensor, *, is_heldout: bool = False) -> Metrics:
        """FD, held-out FD, Inception Score, precision, recall and class accuracy of one set.

        `labels` [n] are the classes asked for; `is_heldout` leaves out the FD of a set with itself.
        The Inception Score is over all samples at once (one split).
        """
        statistics = feature_statistics(seen.features)
        precision, recall = precision_recall(self.reference.features, seen.features, self.neighbors)
        fd_heldout = None if is_heldout else self.frechet(statistics, self.heldout.features)
        return {
            "fd": self.frechet(statistics, self.reference.features),
            "fd_heldout": fd_heldout,
            "is": inception_score(seen.probs, splits=1)[0],
            "precision": precision,
            "recall": recall,
            "accuracy": (seen.probs.argmax(dim=1) == labels.cpu()).double().mean().item(),
        }

    def real(self, num_images: int) -> tuple[Metrics, int]:
        """The metrics of that many held-out images, or of all there are; and how many they were."""
        part = Features(*(seen[:num_images] for seen in self.heldout))
        metrics = self.metrics(part, self.heldout_labels[:num_images], is_heldout=True)
        return metrics, len(part.features)

    def difference(self, one: Tensor, other: Tensor) -> tuple[float, float, float]:
        """FD(one) - FD(other) with its bootstrap interval, of features [n,D] from the same sampling seeds."""
        return bootstrap_frechet_difference(one, other, *feature_statistics(self.reference.features))

    @staticmethod
    def frechet(statistics: tuple[Tensor, Tensor], reference: Tensor) -> float:
        """FD between (mu, sigma) and the features of a reference set."""
        return float(frechet_distance(*statistics, *feature_statistics(reference)))
