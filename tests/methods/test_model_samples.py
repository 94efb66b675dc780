"""Samples of a model as training data: as many of each class, the same bytes each time."""

import numpy as np

from mclr_fast.config import SamplerConfig
from mclr_fast.data import open_dataset
from mclr_fast.methods.model_samples import write_samples
from mclr_fast.models.codecs import PixelCodec
from mclr_fast.runtime.process.ranks import Ranks


def test_samples_are_balanced_and_repeatable(tiny, tmp_path):
    sampler, data = tiny.MODEL.sampler(tiny.tiny_net(), SamplerConfig(num_steps=2)), tiny.TinyData()
    arguments = (sampler, 10, 2**31, data, PixelCodec((1, 8, 8)), 3, Ranks("cpu"), tiny.StopAfter(0))
    for name in ("one.zip", "two.zip"):
        write_samples(tmp_path / name, *arguments)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    samples = open_dataset(str(tmp_path / "one.zip"))
    assert np.bincount(samples.labels).tolist() == [3, 3, 2, 2]
    images = samples.images(np.arange(10))
    assert images.dtype == np.uint8 and images.shape == (10, 1, 8, 8)
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10
