"""EDM2's dataset format: a zip archive or a folder of images or VAE latents, with dataset.json."""

from __future__ import annotations

import difflib
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image

DTYPES = {1: np.dtype(np.uint8), 3: np.dtype(np.uint8), 8: np.dtype(np.float32)}  # by channels


class EDM2Dataset:
    """Labelled images of one shape, read on demand.

    Images are PNG or any other format that PIL knows, grey or RGB; latents are .npy files, float32
    [8, h, w]: four channels of means and four of standard deviations of the VAE's posterior. The
    order is that of the names as strings. Threads may share a dataset, forked processes may not.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        names, self._read = _open(self.path)
        self._has_labels_file = "dataset.json" in names
        PIL.Image.init()
        extensions = {".npy", *PIL.Image.EXTENSION}
        self.names = sorted(n for n in names if os.path.splitext(n)[1].lower() in extensions)
        if not self.names:
            raise ValueError(f"{self.path} holds no images; expected .png or .npy files in it")
        first = self._decode(self.names[0])
        self.image_shape: tuple[int, int, int] = first.shape
        self.dtype = DTYPES[first.shape[0]]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class indices, int64 [n]."""
        labels = self._labels_by_name()
        unlabelled = [name for name in self.names if name not in labels]
        if unlabelled:
            raise ValueError(
                f"{self.path}: dataset.json has no label for {unlabelled[0]!r} "
                f"({len(unlabelled)} of {len(self)} images lack one); names must match exactly"
            )
        classes = [labels[name] for name in self.names]
        for name, label in zip(self.names, classes, strict=True):
            if type(label) is not int or label < 0:
                raise ValueError(
                    f"{self.path}: the label of {name!r} is {label!r}; "
                    "labels must be integer class indices from 0"
                )
        return np.array(classes, dtype=np.int64)

    @property
    def num_classes(self) -> int:
        """The largest label plus one, EDM2's label_dim."""
        return int(self.labels.max()) + 1

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices`, [m, C, H, W]: uint8 for pixels, float32 for latents."""
        images = np.empty((len(indices), *self.image_shape), self.dtype)
        for image, index in zip(images, indices, strict=True):
            name = self.names[index]
            decoded = self._decode(name)
            if decoded.shape != self.image_shape:
                raise ValueError(
                    f"{self.path}: {name!r} has shape {_times(decoded.shape)}, the first image "
                    f"{_times(self.image_shape)}; bring all images to one size and format"
                )
            image[:] = decoded
        return images

    def _labels_by_name(self) -> dict:
        mend = 'expected {"labels": [["file name", class index], ...]}'
        if not self._has_labels_file:
            raise ValueError(f"{self.path} has no dataset.json, so no labels; {mend}")
        try:
            labels = json.loads(self._read("dataset.json"))["labels"]
            labels = None if labels is None else dict(labels)
        except (ValueError, TypeError, LookupError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path}: dataset.json is malformed ({error!r}); {mend}") from error
        if labels is None:
            raise ValueError(f'{self.path}: dataset.json says "labels": null; {mend}')
        return labels

    def _decode(self, name: str) -> np.ndarray:
        """One image, [C, H, W] in one of the DTYPES."""
        try:
            file = io.BytesIO(self._read(name))
            if name.lower().endswith(".npy"):
                image, mode = np.load(file, allow_pickle=False), "npy"
            else:
                with PIL.Image.open(file) as opened:
                    image, mode = np.atleast_3d(opened).transpose(2, 0, 1), opened.mode
        except Exception as error:  # whatever a damaged file makes a decoder raise
            raise ValueError(f"{self.path}: {name!r} cannot be read ({error!r})") from error
        known = image.ndim == 3 and DTYPES.get(image.shape[0]) == image.dtype
        if not known or mode not in ("L", "RGB", "npy"):
            raise ValueError(
                f"{self.path}: {name!r} is {image.dtype} {_times(image.shape)} ({mode}); expected "
                "grey or RGB pixels (uint8, 1 or 3 channels) or VAE latents (float32, 8 channels)"
            )
        return image


def _open(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The files of a folder or zip archive, and how to read one."""
    if path.is_dir():
        files = [Path(root, file) for root, _, files in os.walk(path) for file in files]
        names = [file.relative_to(path).as_posix() for file in files]
        return names, lambda name: (path / name).read_bytes()
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = ", ".join(difflib.get_close_matches(path.name, siblings))
        raise FileNotFoundError(f"no dataset at {path}" + (f"; near it: {near}" if near else ""))
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is not a zip archive; expected an EDM2 dataset, a .zip or a folder"
        ) from error
    return archive.namelist(), archive.read


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
