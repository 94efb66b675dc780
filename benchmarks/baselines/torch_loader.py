"""What one writes with PyTorch alone: a Dataset that reads a zip with PIL, and a DataLoader."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset


class ZipImages(Dataset):
    """Images uint8 [3,H,W] and their classes."""

    def __init__(self, path: Path):
        self.path = path
        self.archive = None  # every worker opens its own
        with zipfile.ZipFile(path) as archive:
            labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        self.names = sorted(labels)
        self.labels = [labels[name] for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        with self.archive.open(self.names[index]) as file, PIL.Image.open(file) as image:
            pixels = np.array(image)
        return torch.from_numpy(pixels).permute(2, 0, 1), self.labels[index]


def torch_loader(path: Path, indices: np.ndarray, batch_size: int, num_workers: int) -> DataLoader:
    """Batches of these images, in this order."""
    return DataLoader(
        ZipImages(path),
        batch_size=batch_size,
        sampler=indices.tolist(),
        num_workers=num_workers,
        persistent_workers=True,
    )
