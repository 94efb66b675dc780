"""Data sets: labels, images by index, and the order in which a run sees them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from .encoders import LatentEncoder, RGBEncoder
from .order import SampleOrder

__all__ = ["Dataset", "LatentEncoder", "RGBEncoder", "SampleOrder", "encoder_for", "open_dataset"]


class Dataset(Protocol):
    """What a training set offers.

    Attributes: labels int64 numpy [n]; num_classes; image_shape (C, H, W) as stored.
    """

    labels: np.ndarray
    num_classes: int
    image_shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray) -> np.ndarray | torch.Tensor:
        """Images at `indices` [m]: uint8 [m,C,H,W], or float32 [m,8,h,w] raw latents.

        An array; from a loader that decodes on a GPU, a tensor there.
        """
        ...


def open_dataset(
    name_or_path: str,
    split: str = "train",
    loader: str = "plain",
    num_threads: int = 1,
    device: torch.device | None = None,
) -> Dataset:
    """The embedded set "mnist16" (splits train, heldout), or images at a path: EDM2's zip or folder, or
    a folder for every class.

    Args: loader "auto", "plain" or "dali", its num_threads (0 = this rank's share of the cores) and the
    device it may decode on are for data on disk.
    """
    if name_or_path == "mnist16":
        from .embedded import Mnist16

        return Mnist16(split)
    from .edm2_zip import EDM2Dataset

    return EDM2Dataset(name_or_path, loader, num_threads, device)


def encoder_for(dataset: Dataset, device: torch.device | None = None) -> RGBEncoder | LatentEncoder:
    """What turns stored images into the model's range: raw latents have 8 channels."""
    return LatentEncoder(device=device) if dataset.image_shape[0] == 8 else RGBEncoder()
