"""Sets of images by place."""

import numpy as np
import pytest

from mclr_fast.evaluation.image_sets import ArrayImages, FirstImages, open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), np.uint8)
LABELS = np.array([3, 1, 2, 0, 1, 2, 3])


@pytest.mark.parametrize("count", [1, 4, 7, 9])
def test_the_first_images_have_their_own_labels(count):
    first = FirstImages(ArrayImages(PIXELS, LABELS), count)
    assert len(first) == min(count, 7) and first.labels.tolist() == LABELS[:count].tolist()
    assert np.array_equal(first.images(np.arange(len(first))), PIXELS[:count])


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_npz_gives_the_images_asked_for(tmp_path, write):
    write(tmp_path / "samples.npz", arr_0=PIXELS.transpose(0, 2, 3, 1))
    images = open_images(str(tmp_path / "samples.npz"))
    assert len(images) == 7 and images.image_shape == (3, 4, 5)
    for first, last in ((0, 7), (2, 5), (6, 7)):
        assert np.array_equal(images.images(np.arange(first, last)), PIXELS[first:last])
