"""Labelled images on disk: EDM2's dataset format, or a folder for every class; a zip archive or a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .loaders import make_loader
from .pixels import decode, fault
from .sources import Reading, Source

DTYPES = {1: np.dtype(np.uint8), 3: np.dtype(np.uint8), 8: np.dtype(np.float32)}  # by channels
TOKENS = np.dtype(np.int16)
NUM_LOOKED_AT = 16  # images that opening a data set decodes, evenly spread: all would take minutes


class EDM2Dataset:
    """Labelled images of one shape, read on demand.

    Images are PNG, JPEG and other formats of pixels that PIL knows, grey or RGB; latents are .npy files,
    float32 [8, h, w]: four channels of means and four of standard deviations of the VAE's posterior; tokens
    are .npy files, int16 [L]. The order is that of the names as strings. Labels are those of dataset.json;
    without it, the places of the class folders among their sorted names.
    Threads may share a dataset, forked processes may not.

    Args: loader, num_threads, device as `loaders.make_loader` has them; reading: as `sources.Source`.
    Errors    ValueError for a damaged archive, images of several shapes, a loader that cannot be had.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        loader: str = "plain",
        num_threads: int = 1,
        device: torch.device | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.path = Path(path)
        self._source = Source(self.path, reading)
        self.names = self._source.names
        first = self._decode(self.names[0])
        self.image_shape: tuple[int, ...] = first.shape
        self.dtype = first.dtype
        for index in np.unique(np.linspace(0, len(self) - 1, NUM_LOOKED_AT, dtype=np.int64)):
            self.check(index)
        self._load = make_loader(loader, self, num_threads, device)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> np.ndarray:
        """Class indices, int64 [n]."""
        return self._source.classes.labels

    @property
    def class_names(self) -> list[str]:
        """By class index: its folder's, or as dataset.json's "class_names" has it; else its number."""
        return self._source.classes.names

    @property
    def notes(self) -> list[str]:
        """How files and folders were read, where somebody may have meant it otherwise; one line each."""
        return self._source.notes + self._source.classes.notes

    @property
    def made_with(self) -> dict[str, Any] | None:
        """The options of `prepare` that made it; None where it was made otherwise."""
        return self._source.classes.made_with

    @property
    def fingerprint(self) -> str:
        """As `sources.Source.fingerprint`."""
        return self._source.fingerprint

    @property
    def identity(self) -> dict[str, Any]:
        """As `sources.identity.identity_of`."""
        return self._source.identity

    @property
    def num_classes(self) -> int:
        """The largest label plus one, EDM2's label_dim."""
        return int(self.labels.max()) + 1

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | torch.Tensor:
        """The images at `indices`, [m, C, H, W]: uint8 for pixels, float32 for latents; int16 [m, L], tokens.

        An array on the CPU, of any strides; a tensor where the loader decodes on a GPU.
        """
        return self._load(np.asarray(indices, dtype=np.int64))

    def image(self, index: int) -> np.ndarray:
        """One image, [C, H, W] or [L], decoded by PIL or numpy. ValueError, with its name, if unusable."""
        name = self.names[index]
        decoded = self._decode(name)
        if decoded.shape != self.image_shape:
            raise ValueError(
                f"{self.path}: {name!r} has shape {_times(decoded.shape)}, the first image "
                f"{_times(self.image_shape)}; bring all images to one size and format: "
                "python -m mclr_fast.prepare does"
            )
        return decoded

    def check(self, index: int) -> None:
        """ValueError for an image that cannot be used, and for latents that are not finite."""
        image = self.image(index)
        if image.dtype == np.float32 and not np.isfinite(image).all():
            raise ValueError(f"{self.path}: {self.names[index]!r} holds numbers that are not finite")

    def view(self, index: int) -> bytes:
        """One image's file, undecoded. PNG files are left to their own checksums."""
        name = self.names[index]
        return self._source.view(name) if name.lower().endswith(".png") else self._source.read(name)

    def expect(self, indices: np.ndarray) -> None:
        """These images are read next: the disk may begin."""
        self._source.expect(self.names[index] for index in indices)

    def _decode(self, name: str) -> np.ndarray:
        """One image, [C, H, W] in one of the DTYPES, or tokens."""
        data = None
        try:
            data = self._source.read(name)
            image, mode = decode(name, data)
        except Exception as error:  # whatever a damaged file makes a decoder raise
            raise ValueError(f"{self.path}: {name!r} cannot be read ({fault(error, data)})") from error
        known = image.ndim == 3 and DTYPES.get(image.shape[0]) == image.dtype
        known |= image.ndim == 1 and image.dtype == TOKENS
        if not known or mode not in ("L", "RGB", "npy"):
            raise ValueError(
                f"{self.path}: {name!r} is {image.dtype} {_times(image.shape)} ({mode}); expected "
                "grey or RGB pixels (uint8, 1 or 3 channels), VAE latents (float32, 8 channels) or tokens "
                "(int16, one row); python -m mclr_fast.prepare makes RGB of other pixels"
            )
        return image


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
