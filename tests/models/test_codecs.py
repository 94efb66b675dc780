"""Pixels and latents to and from a network's range: EDM2's recorded values, to the bit."""

import json

import numpy as np
import pytest
import torch
from zips import write_zip

from mclr_fast.data import open_dataset
from mclr_fast.models.codecs import LatentCodec, PixelCodec, codec_for


@pytest.fixture
def arrays(golden):
    arrays = golden("edm2_dataset")
    return {
        name: torch.from_numpy(arrays[name])
        for name in arrays.files
        if name.startswith(("rgbenc/", "vae", "latents/images"))
    }


def assert_equal(actual, expected):
    np.testing.assert_array_equal(actual.numpy(), expected.numpy(), strict=True)


def test_pixels_are_encoded_and_decoded_as_recorded(arrays):
    encoder = PixelCodec((3, 8, 8))
    encoded = encoder.encode(arrays["rgbenc/bytes"])
    assert_equal(encoded, arrays["rgbenc/encoded"])
    assert_equal(encoder.decode(encoded), arrays["rgbenc/roundtrip"])
    assert_equal(encoder.decode(arrays["rgbenc/floats"]), arrays["rgbenc/decoded"])


def test_latents_are_drawn_and_scaled_as_recorded(arrays):
    encoder = LatentCodec(arrays["vae/normals"].shape[1:])
    encoded = encoder.encode(arrays["latents/images"], arrays["vae/normals"])
    assert_equal(encoder.scale.flatten(), arrays["vae/scale"])
    assert_equal(encoder.bias.flatten(), arrays["vae/bias"])
    assert_equal(encoded, arrays["vae/final_latents"])
    assert_equal(encoder.unscale(encoded), arrays["vae/decoder_input"])


def test_another_vaes_statistics_scale_as_recorded(golden, arrays):
    vae = json.loads(str(golden("edm2_dataset")["config_json"]))["vae"]
    encoder = LatentCodec((4, 8, 8), **vae["custom"])
    assert_equal(encoder.scale.flatten(), arrays["vae_custom/scale"])
    assert_equal(encoder.bias.flatten(), arrays["vae_custom/bias"])


def test_latent_samples_read_back_as_the_model_made_them(tmp_path):
    x = torch.randn(5, 4, 8, 8)
    write_zip(tmp_path / "latents.zip", LatentCodec((4, 8, 8)).stored(x).numpy(), np.arange(5) % 2)
    latents = open_dataset(str(tmp_path / "latents.zip"))
    raw = torch.from_numpy(latents.images(np.arange(5)))
    read = codec_for(latents.image_shape).encode(raw, torch.randn(5, 4, 8, 8))
    torch.testing.assert_close(read, x, rtol=0, atol=1e-5)
