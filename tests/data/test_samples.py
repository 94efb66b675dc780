"""Images by class and by index: which may come and how often, and what keys a codec's normals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mclr_fast.data import rng
from mclr_fast.data.samples import ClassSamples, encode

SHAPE = (2, 3)


class Marked:
    """20 images of 4 classes; every value of image i is i."""

    labels = np.arange(20) % 4

    def __len__(self):
        return 20

    def images(self, index):
        return np.broadcast_to(np.asarray(index, np.uint8)[:, None, None], (len(index), *SHAPE)).copy()


class Drawing:
    """A codec that adds its normals to what is stored."""

    num_normals = 6

    def encode(self, raw, normals):
        return raw.float() + normals.reshape(raw.shape)


PLAIN = SimpleNamespace(num_normals=0, encode=lambda raw: raw.float() / 2)


def test_no_two_draws_share_a_stream():
    streams = [value for name, value in vars(rng).items() if name.endswith("_STREAM")]
    assert len(set(streams)) == len(streams) >= 9
    assert max(streams) == rng.DROPOUT_STREAM  # above it is one a block


def test_a_classs_samples_come_equally_often():
    uniform = rng.sample_uniforms(0, torch.arange(4000), 1)
    index = ClassSamples(Marked()).indices(torch.zeros(4000, dtype=torch.int64), uniform)
    assert sorted(np.unique(index)) == [0, 4, 8, 12, 16]
    counts = np.bincount(index.ravel())[[0, 4, 8, 12, 16]]
    assert np.abs(counts - 800).max() < 4 * np.sqrt(800)


def test_the_whole_interval_is_the_class_in_order():
    """0 is its first image, just below 1 its last: in float32 too."""
    below = np.nextafter(np.float32(1), np.float32(0))
    uniform = torch.tensor([[0.0, 0.21, 0.5, below]]).expand(2, 4)
    found = ClassSamples(Marked()).indices(torch.tensor([1, 3]), uniform)
    assert found.tolist() == [[1, 5, 9, 17], [3, 7, 11, 19]]


def test_only_chosen_images_take_part():
    samples = ClassSamples(Marked(), np.array([2, 5, 6, 13]))
    found = samples.indices(torch.tensor([2, 1]), torch.tensor([[0.1, 0.9], [0.1, 0.9]]))
    assert found.tolist() == [[2, 6], [5, 13]]
    with pytest.raises(KeyError):
        samples.indices(torch.tensor([0]), torch.zeros(1, 1))


def test_images_lie_where_their_indices_do():
    index = np.array([[0, 7], [19, 7]])
    x = encode(Marked(), PLAIN, index, seed=0, position=torch.tensor([5, 6]))
    assert x.shape == (2, 2, *SHAPE) and x.dtype == torch.float32
    assert torch.equal(x[..., 0, 0], torch.from_numpy(index).float() / 2)


def test_what_a_codec_draws_is_keyed_by_position_and_column():
    """Rows taken apart, in another order, or cut by columns: the same values; another seed: others."""
    index, position = np.arange(12).reshape(3, 4), torch.tensor([4, 2**33, 9])

    def encoded(rows=(0, 1, 2), columns=slice(0, 4), seed=1):
        rows = list(rows)
        return encode(Marked(), Drawing(), index[rows, columns], seed, position[rows], columns.start)

    whole = encoded()
    assert torch.equal(encoded(rows=(2, 0)), whole[[2, 0]])
    for cut in (1, 3):
        parts = [encoded(columns=slice(0, cut)), encoded(columns=slice(cut, 4))]
        assert torch.equal(torch.cat(parts, dim=1), whole)
    normals = whole - torch.from_numpy(index)[..., None, None]
    assert len(normals.unique()) > 0.9 * normals.numel()  # no row and no column has another's
    assert not torch.equal(encoded(seed=2), whole)
