"""Some of a labelled set's images: what trains a classifier, what it has not seen, classes evenly."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from mclr_fast.data.sources.identity import digest
from mclr_fast.runtime.errors import RunError

from .image_sets import ImageSet

HELDOUT_SHARE, SPLIT_SEED = 10, 0  # one image of so many, of every class
MIN_PER_CLASS, MAX_CLASSES = 10, 1000
UNCOMPARED = ("read", "times")  # of an identity: how it was looked at, and what a copy changes too


class PartImages:
    """The images of a set at some places, in that order.

    Attributes: as `ImageSet`; source, the set's path, and part, which of it, in words.
    """

    def __init__(self, images: ImageSet, places: np.ndarray, source: str, part: str):
        self._images, self._places = images, places
        self.image_shape, self.labels = images.image_shape, images.labels[places]
        self.source, self.part = source, part
        whole = images.fingerprint.encode()
        self.fingerprint = hashlib.sha256(whole + self._places.astype(np.int64).tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._places)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [m,C,H,W]."""
        return self._images.images(self._places[indices])


def labels_of(images: ImageSet, name: str) -> np.ndarray:
    """The labels of a set, int64 [n]. RunError, one line, where there are none."""
    try:
        labels = images.labels
    except ValueError as error:
        raise RunError(f"{str(error).rstrip('.')}: protocol classifier needs labelled images.") from error
    if labels is None:
        raise RunError(
            f"{name} has no labels, which protocol classifier needs: name a data set that has them (an EDM2 "
            "zip, or a folder of images a class)."
        )
    return np.asarray(labels, dtype=np.int64)


def check_classes(labels: np.ndarray, class_names: list[str] | None, name: str) -> None:
    """RunError for a set that no classifier can be trained on: its classes, or images of one."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or classes[0] < 0 or classes[-1] >= MAX_CLASSES:
        raise RunError(
            f"{name} has {len(classes)} classes, numbered {classes[0]} to {classes[-1]}: protocol classifier "
            f"tells 2 to {MAX_CLASSES:,} classes apart, of numbers 0 to {MAX_CLASSES - 1}."
        )
    smallest = int(counts.argmin())
    if counts[smallest] < MIN_PER_CLASS:
        number = int(classes[smallest])
        called = f" ({class_names[number]})" if class_names else ""
        raise RunError(
            f"class {number}{called} of {name} has {counts[smallest]} images; protocol classifier needs at "
            f"least {MIN_PER_CLASS} of each class: add images, leave the class out, or judge by another "
            "--protocol."
        )


def tenth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places left, places of a seeded tenth of every class), int64; of each any prefix is balanced."""
    order = interleaved(labels)
    rank = _rank_in_class(labels[order])
    counts = np.bincount(labels)[labels[order]]
    is_held_out = rank < np.maximum(counts // HELDOUT_SHARE, 1)
    return order[~is_held_out], order[is_held_out]


def interleaved(labels: np.ndarray) -> np.ndarray:
    """All places, shuffled, class after class in turn as far as they last: int64 [n]."""
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    return shuffled[np.argsort(_rank_in_class(labels[shuffled]), kind="stable")]


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """For each place how many earlier ones have its label."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - starts
    return rank


def data_hash(images: ImageSet, labels: np.ndarray) -> str:
    """What a labelled set is, wherever it lies, in hexadecimal: its identity, or else all of its images."""
    identity: dict[str, Any] | None = getattr(images, "identity", None)
    kept = identity and {name: value for name, value in identity.items() if name not in UNCOMPARED}
    said = json.dumps(kept or images.fingerprint, sort_keys=True).encode()
    return digest(said, labels.tobytes())
