"""What a classifier chooses of a model's samples."""

import numpy as np
import torch

from mclr_fast.methods.ratio import best_samples
from mclr_fast.models.codecs import PixelCodec


def test_best_samples_are_a_share_of_each_class():
    """A classifier that reads the class's likelihood off the brightness."""

    class Bright:
        labels = np.repeat(np.arange(2), 10)
        image_shape = (1, 1, 1)

        def __len__(self):
            return 20

        def images(self, index):
            return (np.asarray(index) * 7 % 20).astype(np.uint8).reshape(-1, 1, 1, 1)

    class Classifier:
        def ratio(self, x, sigma, labels):
            return x[:, 0, 0]

    chosen = best_samples(Classifier(), Bright(), PixelCodec((1, 1, 1)), 0.2, 0.1, 0, torch.device("cpu"))
    brightness = np.arange(20) * 7 % 20
    expected = [np.argsort(-brightness[first : first + 10])[:2] + first for first in (0, 10)]
    assert sorted(chosen) == sorted(np.concatenate(expected))
