"""Images by index in a network's range, and by class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import Codec, Dataset, rng


class ClassSamples:
    """A data set drawn from by class: a model's own samples, or anybody's."""

    def __init__(self, dataset: Dataset, chosen: np.ndarray | None = None):
        """chosen: the images that take part, int64 [m]; None = all."""
        self.dataset = dataset
        chosen = np.arange(len(dataset)) if chosen is None else chosen
        labels = dataset.labels[chosen]
        self.by_class = {int(c): chosen[labels == c] for c in np.unique(labels)}

    def indices(self, labels: Tensor, uniform: Tensor) -> np.ndarray:
        """Images of these classes. labels: int64 [n]; uniform: in [0, 1), [n,k] -> int64 [n,k]."""
        rows = zip(labels.tolist(), uniform.double().numpy(), strict=True)
        return np.stack([self.by_class[c][(u * len(self.by_class[c])).astype(np.int64)] for c, u in rows])


def encode(
    dataset: Dataset,
    codec: Codec,
    index: np.ndarray,
    seed: int,
    position: Tensor,
    first_column: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """Images in the network's range, int64 [n,k] -> float32 [n,k,*shape].

    What a codec draws (a latent, from its posterior) is keyed by its row's position and its column.
    device: where that is done, to which the bytes as stored are brought; None = the CPU.
    """
    device = device or torch.device("cpu")
    raw = to_device(torch.as_tensor(dataset.images(index.ravel())).contiguous(), device)
    size = codec.num_normals
    if not size:
        return codec.encode(raw).unflatten(0, index.shape)
    normals = rng.latent_normals(seed, position, (first_column + index.shape[1]) * size)
    normals = normals[:, first_column * size :].reshape(-1, size)
    return codec.encode(raw, to_device(normals, device)).unflatten(0, index.shape)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """The tensor there; to a GPU through pinned memory, used again and again, and without waiting for it."""
    if value.device.type == device.type:
        return value
    return value.contiguous().pin_memory().to(device, non_blocking=True)  # pinned memory has no views
