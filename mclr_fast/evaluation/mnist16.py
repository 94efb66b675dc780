"""The embedded run's protocol: features of the small digit classifier."""

from __future__ import annotations

import numpy as np
import torch

from .digits import DigitClassifier
from .protocol import Protocol


def mnist16_protocol(train_images: np.ndarray, heldout_images: np.ndarray, neighbors: int) -> Protocol:
    """FD, precision and recall against the training digits; the held-out digits for the second FD.

    train_images, heldout_images: uint8 [n,1,16,16].
    """
    extract = DigitClassifier.pretrained()
    bare = Protocol(DigitClassifier.name, extract, None, None, neighbors)
    return Protocol(
        DigitClassifier.name,
        extract,
        bare.features(torch.from_numpy(train_images)),
        bare.features(torch.from_numpy(heldout_images)),
        neighbors,
    )
