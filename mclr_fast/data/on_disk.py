"""Labelled images on disk: EDM2's dataset format, or a folder for every class; a zip archive or a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from .files import open_files
from .labels import read_labels
from .loaders import make_loader

DTYPES = {1: np.dtype(np.uint8), 3: np.dtype(np.uint8), 8: np.dtype(np.float32)}  # by channels
NUM_LOOKED_AT = 16  # images that opening a data set decodes, evenly spread: all would take minutes


class EDM2Dataset:
    """Labelled images of one shape, read on demand.

    Images are PNG or any other format that PIL knows, grey or RGB; latents are .npy files, float32
    [8, h, w]: four channels of means and four of standard deviations of the VAE's posterior. The
    order is that of the names as strings. Labels are those of dataset.json; without it, the places of
    the top-level folders among their sorted names. Threads may share a dataset, forked processes may not.

    Args: loader, num_threads, device as `loaders.make_loader` has them.
    Errors    ValueError for a damaged archive, images of several shapes, a loader that cannot be had.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        loader: str = "plain",
        num_threads: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.path = Path(path)
        self._files = open_files(self.path)
        self.names = image_names(self._files.names)
        if not self.names:
            raise ValueError(f"{self.path} holds no images; expected .png or .npy files in it")
        first = self._decode(self.names[0])
        self.image_shape: tuple[int, int, int] = first.shape
        self.dtype = DTYPES[first.shape[0]]
        for index in np.unique(np.linspace(0, len(self) - 1, NUM_LOOKED_AT, dtype=np.int64)):
            self.image(index)
        self._load = make_loader(loader, self, num_threads, device)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class indices, int64 [n]."""
        return read_labels(self.path, self._files, self.names)

    @property
    def num_classes(self) -> int:
        """The largest label plus one, EDM2's label_dim."""
        return int(self.labels.max()) + 1

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | torch.Tensor:
        """The images at `indices`, [m, C, H, W]: uint8 for pixels, float32 for latents.

        An array on the CPU, of any strides; a tensor where the loader decodes on a GPU.
        """
        return self._load(np.asarray(indices, dtype=np.int64))

    def image(self, index: int) -> np.ndarray:
        """One image, [C, H, W], decoded by PIL or numpy. ValueError, with its name, if it cannot be used."""
        name = self.names[index]
        decoded = self._decode(name)
        if decoded.shape != self.image_shape:
            raise ValueError(
                f"{self.path}: {name!r} has shape {_times(decoded.shape)}, the first image "
                f"{_times(self.image_shape)}; bring all images to one size and format: "
                "python -m mclr_fast.prepare does"
            )
        return decoded

    def view(self, index: int) -> memoryview | bytes:
        """One image's file, undecoded. PNG files are left to their own checksums."""
        name = self.names[index]
        return self._files.view(name) if name.lower().endswith(".png") else self._files.read(name)

    def expect(self, indices: np.ndarray) -> None:
        """These images are read next: the disk may begin."""
        self._files.expect(self.names[index] for index in indices)

    def _decode(self, name: str) -> np.ndarray:
        """One image, [C, H, W] in one of the DTYPES."""
        try:
            image, mode = decode(name, self._files.read(name))
        except PIL.UnidentifiedImageError as error:
            raise ValueError(
                f"{self.path}: {name!r} cannot be read (it is no image that PIL knows)"
            ) from error
        except Exception as error:  # whatever a damaged file makes a decoder raise
            raise ValueError(f"{self.path}: {name!r} cannot be read ({error!r})") from error
        known = image.ndim == 3 and DTYPES.get(image.shape[0]) == image.dtype
        if not known or mode not in ("L", "RGB", "npy"):
            raise ValueError(
                f"{self.path}: {name!r} is {image.dtype} {_times(image.shape)} ({mode}); expected "
                "grey or RGB pixels (uint8, 1 or 3 channels) or VAE latents (float32, 8 channels)"
            )
        return image


def image_names(names: Sequence[str]) -> list[str]:
    """Those of the files that are images or latents, sorted as strings."""
    PIL.Image.init()
    extensions = {".npy", *PIL.Image.EXTENSION}
    return sorted(n for n in names if os.path.splitext(n)[1].lower() in extensions)


def decode(name: str, data: memoryview | bytes) -> tuple[np.ndarray, str]:
    """A file's image as [C, H, W], and PIL's mode of it, or "npy"."""
    file = io.BytesIO(data)
    if name.lower().endswith(".npy"):
        return np.load(file, allow_pickle=False), "npy"
    with PIL.Image.open(file) as opened:
        return np.atleast_3d(opened).transpose(2, 0, 1), opened.mode


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
