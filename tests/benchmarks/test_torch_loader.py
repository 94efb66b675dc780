"""The DataLoader that the loaders are timed against gives the same images and classes."""

import numpy as np
import torch
from baselines.torch_loader import torch_loader
from zips import write_zip

from mclr_fast.data import open_dataset


def test_same_images_and_classes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), np.uint8)
    path = tmp_path / "data.zip"
    write_zip(path, images, np.arange(12) % 5)
    indices = np.array([7, 3, 3, 11, 0])
    read, labels = (torch.cat(parts) for parts in zip(*torch_loader(path, indices, 2, 1), strict=True))
    dataset = open_dataset(str(path))
    assert read.dtype == torch.uint8 and np.array_equal(read, dataset.images(indices))
    assert labels.tolist() == dataset.labels[indices].tolist()
