"""Latents are EDM2's: pixels in [0, 1], mean and standard deviation in the first and the last channels."""

import sys

import numpy as np
import pytest
import torch

from mclr_fast.models import vae

CPU = torch.device("cpu")


def test_what_goes_in_and_comes_out(tiny_vae):
    images = np.random.default_rng(0).integers(0, 256, (vae.BATCH + 3, 3, 16, 16), np.uint8)
    latents = vae.VAEEncoder(str(tiny_vae), CPU)(images)
    assert latents.dtype == np.float32 and latents.shape == (len(images), 8, 8, 8)
    from diffusers import AutoencoderKL

    with torch.no_grad():
        model = AutoencoderKL.from_pretrained(tiny_vae)
        moments = model.quant_conv(model.encoder(torch.from_numpy(images[-2:]) / 255.0))
    mean, log_variance = moments.chunk(2, dim=1)
    np.testing.assert_allclose(latents[-2:, :4], mean, atol=1e-6)
    np.testing.assert_allclose(latents[-2:, 4:], (0.5 * log_variance).exp(), atol=1e-6)


def test_vaes_that_cannot_be_had(tmp_path, monkeypatch):
    pytest.importorskip(
        "diffusers", reason="latents are made with diffusers: pip install 'mclr_fast[latents]'"
    )
    with pytest.raises(ValueError, match=r"no VAE at .*: give its folder or its name") as caught:
        vae.VAEEncoder(str(tmp_path), CPU)
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"pip install 'mclr_fast\[latents\]'"):
        vae.VAEEncoder(str(tmp_path), CPU)


def test_latents_become_images(tiny_vae):
    """In batches, clipped to [0, 1] and truncated; a rank without a share learns the shape."""
    latents = torch.randn(vae.BATCH + 3, 4, 8, 8) * 3
    decode = vae.VAEDecoder(str(tiny_vae), CPU)
    images = decode(latents)
    assert images.dtype == torch.uint8 and images.shape == (len(latents), 3, 16, 16)
    from diffusers import AutoencoderKL

    with torch.no_grad():
        model = AutoencoderKL.from_pretrained(tiny_vae)
        pixels = model.decoder(model.post_quant_conv(latents[-2:]))
    expected = (pixels.clip(0, 1) * 255).floor()
    assert (images[-2:] - expected).abs().max() <= 1 and expected.unique().numel() > 20
    assert decode(latents[:0]).shape == (0, 3, 16, 16)
