"""Networks by one word, for images of any side."""

import pytest
import torch

from mclr_fast.models.edm2 import Precond
from mclr_fast.models.edm2.sizes import SIZES, network_of, num_levels


@pytest.mark.parametrize(
    ("side", "levels"), [(1, 1), (8, 2), (16, 3), (28, 3), (32, 3), (50, 2), (64, 4), (65, 1), (256, 6)]
)
def test_levels_follow_the_side(side, levels):
    assert num_levels(side) == levels


def test_tiny_small_and_medium_have_these_parameters():
    """At 32x32 in colour, three classes: docs/own-images.md says so."""
    counts = {}
    for size in ("tiny", "small", "medium"):
        with torch.device("meta"):
            net = Precond(**network_of(size, (3, 32, 32), 3))
        counts[size] = sum(p.numel() for p in net.parameters())
    assert counts == {"tiny": 288_896, "small": 7_078_358, "medium": 28_304_150}


@pytest.mark.parametrize("size", ["tiny", "small", "edm2-img64-xs"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (4, 64, 64)])
def test_the_image_is_the_datas(size, shape):
    net = network_of(size, shape, 7)
    assert (net["img_channels"], net["img_resolution"], net["img_resolution"]) == shape
    assert net["label_dim"] == 7
    if size == "tiny":
        made = Precond(**net)
        x = torch.randn(2, *shape)
        assert made(x, torch.ones(2), torch.tensor([0, 6])).shape == x.shape


def test_a_presets_name_is_its_width():
    assert network_of("edm2-img64-s", (3, 64, 64), 1000) == {
        "img_resolution": 64,
        "img_channels": 3,
        "label_dim": 1000,
        "model_channels": 192,
    }
    assert "edm2-img512-xxl" in SIZES


@pytest.mark.parametrize(
    ("size", "shape", "words"),
    [
        ("smal", (3, 32, 32), "--size smal is none; nearest: small."),
        ("?", (3, 32, 32), "--size ? is none; known: tiny, small, medium, edm2-"),
        ("tiny", (3, 32, 48), "the images are 32x48, and the network's are square"),
        (
            "edm2-img64-s",
            (3, 36, 36),
            "prepare them at --resolution 32, or choose --size tiny, small, medium.",
        ),
    ],
)
def test_what_cannot_be_is_one_line(size, shape, words):
    with pytest.raises(ValueError) as error:
        network_of(size, shape, 3)
    assert words in str(error.value)
