"""Images that are judged or compared with, by place: a folder, a zip, or an .npz of the ADM evaluator."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mclr_fast.data import open_dataset
from mclr_fast.data.on_disk import EDM2Dataset
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.stages import progress_bar


class ImageSet(Protocol):
    """Images by place.

    Attributes: image_shape (C, H, W), C 1 or 3; labels int64 [n], where they are known; fingerprint, a hash
    of what the set is.
    """

    image_shape: tuple[int, int, int]
    labels: np.ndarray | None
    fingerprint: str

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [m,C,H,W]; ValueError for one that cannot be read."""
        ...


def open_images(path: str, split: str = "train") -> ImageSet:
    """A folder or zip of images of one size, grey or RGB; an .npz whose arr_0 they are; "mnist16".

    split: of an embedded data set, "train" or "heldout".

    Errors    RunError for latents, for images of several sizes, with alpha, or of other modes: among the few
              that opening looks at; the others are found when they are read.
    """
    try:
        if path.endswith(".npz"):
            return NpzImages(Path(path))
        dataset = open_dataset(path, split)
        if len(dataset.image_shape) == 1:
            raise ValueError(f"{path} holds tokens, not images: name those that they were made of")
        if dataset.image_shape[0] not in (1, 3):
            raise ValueError(
                f"{path} holds latents of {dataset.image_shape[0]} channels, not images: name those that "
                "they were made of"
            )
        if isinstance(dataset, EDM2Dataset):
            return DatasetImages(dataset, dataset.fingerprint)
        return ArrayImages(dataset.images(np.arange(len(dataset))), dataset.labels)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise RunError(f"{str(error).rstrip('.')}.") from error


class DatasetImages:
    """The images of a data set on disk, read on demand."""

    def __init__(self, dataset: EDM2Dataset, fingerprint: str):
        self.image_shape, self.fingerprint = dataset.image_shape, fingerprint
        self.images, self._dataset = dataset.images, dataset

    @property
    def class_names(self) -> list[str]:
        """By class number; ValueError where there are no labels."""
        return self._dataset.class_names

    @property
    def identity(self) -> dict[str, Any]:
        """As `Dataset` has it."""
        return self._dataset.identity

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]; ValueError where there are none."""
        return self._dataset.labels

    def __len__(self) -> int:
        return len(self._dataset)


class ArrayImages:
    """Images in memory, uint8 [n,C,H,W]. ValueError for anything else."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray | None = None):
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise ValueError(f"images are uint8 [n,C,H,W], C 1 or 3, not {pixels.dtype} {list(pixels.shape)}")
        self._pixels, self.labels, self.image_shape = pixels, labels, pixels.shape[1:]
        self.fingerprint = hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()

    def __len__(self) -> int:
        return len(self._pixels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [m,C,H,W]."""
        return self._pixels[indices]


class FirstImages:
    """The first images of a set, or all there are."""

    def __init__(self, images: ImageSet, num_images: int):
        self._num_images = min(num_images, len(images))
        self.images, self.image_shape = images.images, images.image_shape
        self.fingerprint = images.fingerprint
        self._images = images

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]."""
        return self._images.labels[: self._num_images]

    def __len__(self) -> int:
        return self._num_images


class NpzImages:
    """arr_0 of an .npz, uint8 [N,H,W,3] as OpenAI's evaluator takes it; read in pieces, never as a whole."""

    labels = None

    def __init__(self, path: Path):
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
            with self._archive.open("arr_0.npy") as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, is_fortran, dtype = read(file)
                self._start = file.tell()
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no .npz of images: it has no readable arr_0 ({error})") from error
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or is_fortran:
            raise ValueError(f"{path}: arr_0 is {dtype} {list(shape)}; images are uint8 [N,H,W,3]")
        self._shape = shape
        self.image_shape = (3, shape[1], shape[2])
        entry = self._archive.getinfo("arr_0.npy")
        self.fingerprint = hashlib.sha256(f"{entry.CRC} {entry.file_size} {shape}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._shape[0]

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Images of neighbouring places, uint8 [m,3,H,W]."""
        size = int(np.prod(self._shape[1:]))
        first, count = int(indices[0]), len(indices)
        assert np.array_equal(indices, np.arange(first, first + count))
        try:
            with self._archive.open("arr_0.npy") as file:
                file.seek(self._start + first * size)
                data = file.read(count * size)
            pixels = np.frombuffer(data, np.uint8).reshape(count, *self._shape[1:])
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ValueError(f"{self.path} is damaged near image {first} ({error})") from error
        return pixels.transpose(0, 3, 1, 2)


def class_labels(images: ImageSet, class_names: Sequence[str] | None = None) -> Tensor | None:
    """The labels of a set, int64 [n]; None where it has none, or classes of other names than these.

    Classes are known by their names where both sides have them, so that a folder of some classes counts.
    """
    try:
        labels = images.labels
    except ValueError:
        return None
    if labels is None:
        return None
    theirs = getattr(images, "class_names", None)
    if not theirs or not class_names or list(theirs) == list(class_names):
        return torch.from_numpy(labels)
    numbers = {name: number for number, name in enumerate(class_names)}
    present = np.unique(labels)
    if not all(theirs[number] in numbers for number in present):
        return None
    return torch.tensor([numbers[theirs[number]] for number in labels.tolist()])


def batches(
    images: ImageSet, batch_size: int, ranks: Ranks, stop: StopRequest, description: str
) -> Iterator[tuple[range, Tensor]]:
    """(places, uint8 [b,C,H,W]): this rank's share of every round of a batch a rank, perhaps an empty one.

    Errors    RunError, on all ranks, for an image that cannot be read. Interrupted, between batches.
    """
    with progress_bar(description, len(images), 0, ranks.is_main, "images") as bar:
        for places, own in ranks.rounds(len(images), batch_size):
            stop.check()
            read, error = torch.empty(0, *images.image_shape, dtype=torch.uint8), None
            try:
                if own:
                    read = torch.tensor(np.ascontiguousarray(images.images(np.array(own))))
            except ValueError as found:
                error = f"{str(found).rstrip('.')}."
            if error := ranks.first(error):
                raise RunError(error)
            yield own, read
            bar.update(len(places))
