"""The embedded run's protocol: features of the small digit classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .extractors.digits import DigitClassifier
from .features import Extractor, FeatureCollector, Features
from .protocol import Protocol

if TYPE_CHECKING:
    from mclr_fast.data import Dataset

BATCH = 500  # images seen at once


def mnist16_protocol(train: Dataset, heldout: Dataset, neighbors: int) -> Protocol:
    """FD, precision and recall against the training digits; the held-out digits for the second FD."""
    extract = DigitClassifier.pretrained()
    return Protocol(
        DigitClassifier.name,
        extract,
        features_of(train, extract),
        features_of(heldout, extract),
        torch.from_numpy(heldout.labels),
        neighbors,
    )


def features_of(dataset: Dataset, extract: Extractor) -> Features:
    """Those of all images of a data set."""
    collector = FeatureCollector(extract)
    for first in range(0, len(dataset), BATCH):
        places = range(first, min(first + BATCH, len(dataset)))
        collector.add(torch.from_numpy(dataset.images(np.array(places))), places)
    return collector.whole()
