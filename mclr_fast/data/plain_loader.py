"""PIL and numpy decode, in threads; and what any loader loads from."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np


class ImageFiles(Protocol):
    """What a loader loads from (`on_disk.EDM2Dataset`)."""

    path: os.PathLike[str]
    names: list[str]
    image_shape: tuple[int, int, int]
    dtype: np.dtype

    def image(self, index: int) -> np.ndarray:
        """One image, decoded and checked."""
        ...

    def view(self, index: int) -> memoryview | bytes:
        """One image's file."""
        ...

    def expect(self, indices: np.ndarray) -> None:
        """These images are read next."""
        ...


class PlainLoader:
    """Reads and decodes images in worker threads."""

    def __init__(self, files: ImageFiles, num_threads: int):
        self.files = files
        self.num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, "load") if num_threads > 1 else None

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """int64 [m] -> [m, C, H, W]. ValueError for an image that cannot be used."""
        self.files.expect(indices)
        images = np.empty((len(indices), *self.files.image_shape), self.files.dtype)

        def load(part: slice) -> None:
            for place in range(*part.indices(len(indices))):
                images[place] = self.files.image(indices[place])

        if self._pool is None:
            load(slice(None))
        else:
            parts = (slice(first, None, self.num_threads) for first in range(self.num_threads))
            for _ in self._pool.map(load, parts):
                pass
        return images
