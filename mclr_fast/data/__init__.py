"""Data sets: labels, images by index, and the order in which a run sees them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .order import SampleOrder

__all__ = ["Codec", "Dataset", "SampleOrder", "open_dataset"]


class Dataset(Protocol):
    """What a training set offers.

    Attributes: labels int64 numpy [n]; num_classes; image_shape (C, H, W) as stored, or (L,) of tokens;
    class_names by number, which stands for a missing one; notes: how it was read, in lines, where that may
    not be what was meant; identity: digests that another set of the same images and labels has too,
    wherever it lies.
    """

    labels: np.ndarray
    num_classes: int
    class_names: list[str]
    notes: list[str]
    identity: dict[str, Any]
    image_shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray) -> np.ndarray | torch.Tensor:
        """Images at `indices` [m]: uint8 [m,C,H,W], float32 [m,8,h,w] raw latents, or tokens int16 [m,L].

        An array; from a loader that decodes on a GPU, a tensor there.
        """
        ...


class Codec(Protocol):
    """Between what a data set stores and x, which a network works in. A family chooses it.

    Attributes:
        shape: of one x.
        num_normals: standard normals that encoding one stored image takes; 0 for none.
        mirrors: whether mirroring x mirrors the image; makes_images: whether `decode` can.
    """

    shape: tuple[int, ...]
    num_normals: int
    mirrors: bool
    makes_images: bool

    def encode(self, raw: Tensor, normals: Tensor | None = None) -> Tensor:
        """As stored [m,...], and normals float32 [m,num_normals] where it takes any -> x [m,*shape]."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """x [b,*shape] -> images, uint8 [b,C,H,W]."""
        ...

    def stored(self, x: Tensor) -> Tensor:
        """x [b,*shape] -> as a data set stores it, so that encoding gives x again as nearly as it can."""
        ...


def open_dataset(
    name_or_path: str,
    split: str = "train",
    loader: str = "plain",
    num_threads: int = 1,
    device: torch.device | None = None,
) -> Dataset:
    """The embedded set "mnist16" (splits train, heldout), or images at a path: EDM2's zip or folder, or
    a folder for every class, in a zip, a tar or a folder.

    Args: loader "auto", "plain" or "dali", its num_threads (0 = this rank's share of the cores) and the
    device it may decode on are for data on disk.
    """
    if name_or_path == "mnist16":
        from .embedded import Mnist16

        return Mnist16(split)
    from .on_disk import EDM2Dataset

    return EDM2Dataset(name_or_path, loader, num_threads, device)
