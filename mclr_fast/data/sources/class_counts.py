"""The classes of a data set in words: numbers, names and how many images each has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .names import some

WHOLE = 40  # classes that are all named
ENDS = (8, 2)  # of more, the first and the last


def class_counts(labels: np.ndarray, names: Sequence[str]) -> str:
    """One line: "2 classes: 0 cat (120), 1 dog (98)". labels: int64 [n]; names by number."""
    counts = np.bincount(labels, minlength=len(names)).tolist()
    are_numbers = all(name == str(i) for i, name in enumerate(names))
    words = [f"{i} ({n:,})" if are_numbers else f"{i} {names[i]} ({n:,})" for i, n in enumerate(counts)]
    if len(words) > WHOLE:
        first, last = ENDS
        words = [*words[:first], "...", *words[-last:]]
    used = [n for n in counts if n]
    spread = f", {min(used):,} to {max(used):,} images each" if len(counts) > WHOLE else ""
    return f"{len(names):,} class{'es' * (len(names) != 1)}{spread}: {', '.join(words)}"


def empty_classes(labels: np.ndarray, names: Sequence[str]) -> str | None:
    """Which classes have no image, in words; None where all have."""
    counts = np.bincount(labels, minlength=len(names))
    numbers = np.flatnonzero(counts == 0)
    empty = [str(i) if names[i] == str(i) else f"{i} {names[i]}" for i in numbers]
    return f"no image is of class {some(empty)}" if empty else None
