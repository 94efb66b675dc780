"""center-crop-dhariwal: squares of the size asked for, the middle kept, halved by means before resized."""

import numpy as np
import PIL.Image
import pytest
from PIL.Image import Resampling

from mclr_fast.data.crop import center_crop_dhariwal


def noise(width, height):
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (64, 91), (63, 200), (127, 64), (128, 300), (500, 375), (17, 9)])
def test_any_image_becomes_a_square_of_the_size_asked_for(size):
    assert center_crop_dhariwal(noise(*size), 64).size == (64, 64)


def test_an_image_of_that_size_stays_as_it_is():
    assert np.array_equal(center_crop_dhariwal(noise(64, 64), 64), noise(64, 64))


def test_the_middle_is_kept():
    image = noise(96, 64)
    assert np.array_equal(center_crop_dhariwal(image, 64), np.asarray(image)[:, 16:80])


def test_halved_by_means_of_four_while_twice_as_large():
    pixels = np.asarray(noise(128, 128)).astype(float)
    means = pixels.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert (
        np.abs(np.asarray(center_crop_dhariwal(noise(128, 128), 64)) - means).max() <= 1
    )  # rounded in both directions


def test_halved_twice_then_bicubic():
    """500x375 to 64: 250x187, 125x93, 86x64, and of 86 the columns 11 to 74."""
    image = noise(500, 375).resize((250, 187), Resampling.BOX).resize((125, 93), Resampling.BOX)
    expected = np.asarray(image.resize((86, 64), Resampling.BICUBIC))[:, 11:75]
    assert np.array_equal(center_crop_dhariwal(noise(500, 375), 64), expected)
