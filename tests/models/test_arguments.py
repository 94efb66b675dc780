"""Arguments of a network on a command line: NAME=VALUE, by the constructor's own types."""

import pytest

from mclr_fast.models import get_family
from mclr_fast.models.arguments import parse_arguments

EDM2 = get_family("edm2")


def test_values_have_the_constructors_types():
    texts = [
        "model_channels=32",
        "channel_mult=1,2,2",
        "sigma_data=0.3",
        "clip_act=none",
        "attn_resolutions=",
    ]
    assert parse_arguments(texts, EDM2) == {
        "model_channels": 32,
        "channel_mult": [1, 2, 2],
        "sigma_data": 0.3,
        "clip_act": None,
        "attn_resolutions": [],
    }
    assert parse_arguments(["channel_mult=[1, 2]"], EDM2) == {"channel_mult": [1, 2]}
    assert parse_arguments(["clip_act=256", "channel_mult_emb=2"], EDM2) == {
        "clip_act": 256.0,
        "channel_mult_emb": 2.0,
    }


def test_each_family_has_its_own():
    texts = ["depth=4", "attn_l2_norm=false", "vqvae=mnist16-vqvae", "patch_nums=1,2,3"]
    assert parse_arguments(texts, get_family("var")) == {
        "depth": 4,
        "attn_l2_norm": False,
        "vqvae": "mnist16-vqvae",
        "patch_nums": [1, 2, 3],
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["model_channels"], "--net model_channels is no NAME=VALUE, such as img_resolution=32"),
        (["model_chanels=3"], "no option 'model_chanels'; nearest: model_channels"),
        (["dtype=1"], "no option 'dtype'; it has img_resolution, "),
        (["dropout=0.1"], "no option 'dropout'"),  # a run's, --dropout
        (["model_channels=3.5"], "--net model_channels=3.5: 3.5 is no whole number from 0 on."),
        (["model_channels="], "--net model_channels=: nothing is no whole number from 0 on."),
        (["channel_mult=1,a"], "1,a is no list of whole numbers, like 1,2,2."),
        (["num_blocks=-1"], "-1 is no whole number from 0 on."),
        (["clip_act=x"], "x is no number or none."),
        (["sigma_data=nan"], "nan is no number."),
        (["num_blocks=1", "num_blocks=2"], "--net says num_blocks twice: 1 and 2."),
    ],
)
@pytest.mark.robust("arguments")
def test_what_no_network_has_is_one_line(texts, words):
    """It names the option, the nearest names, and the type that was meant."""
    with pytest.raises(ValueError) as error:
        parse_arguments(texts, EDM2)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
