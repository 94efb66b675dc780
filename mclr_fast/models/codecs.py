"""Between a data set's arrays and the range a network works in: EDM2's pixels and latents."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from mclr_fast.data import Codec

MEAN_AND_STD = 8  # channels of stored latents: four of means, four of standard deviations


def codec_for(stored_shape: tuple[int, ...]) -> Codec:
    """What brings images stored in this shape, (C, H, W), to a network: latents have 8 channels."""
    channels, *size = stored_shape
    if channels == MEAN_AND_STD:
        return LatentCodec((channels // 2, *size))
    return PixelCodec(stored_shape)


class PixelCodec:
    """Pixels: bytes 0..255 to and from [-1, 1]. See `mclr_fast.data.Codec`."""

    num_normals, mirrors, makes_images = 0, True, True

    def __init__(self, shape: tuple[int, ...]):
        """shape: (C, H, W)."""
        self.shape = tuple(shape)

    def encode(self, raw: Tensor, normals: Tensor | None = None) -> Tensor:
        """uint8 -> float32 of that shape, b / 127.5 - 1."""
        return raw.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        """Floating -> uint8 of that shape, 127.5 x + 128 clipped to [0, 255] and truncated."""
        return (x.float() * 127.5 + 128).clip(0, 255).to(torch.uint8)

    stored = decode


class LatentCodec:
    """Latents of a VAE (by default stabilityai/sd-vae-ft-mse's) to and from the network's range.

    A data set stores the posterior's mean and standard deviation; every use draws a fresh sample and
    scales each channel from `raw_mean`, `raw_std` to `final_mean`, `final_std`. See `mclr_fast.data.Codec`.
    """

    mirrors = False  # the VAE of a mirrored image is not the mirrored latent
    makes_images = False

    def __init__(
        self,
        shape: tuple[int, ...],
        raw_mean: Sequence[float] = (5.81, 3.25, 0.12, -2.15),
        raw_std: Sequence[float] = (4.17, 4.62, 3.71, 3.28),
        final_mean: float = 0.0,
        final_std: float = 0.5,
    ) -> None:
        """shape: of a latent, (C, h, w)."""
        self.shape = tuple(shape)
        self.num_normals = prod(shape)
        self.scale = final_std / torch.tensor(raw_std).view(-1, 1, 1)
        self.bias = final_mean - torch.tensor(raw_mean).view(-1, 1, 1) * self.scale

    def encode(self, raw: Tensor, normals: Tensor | None = None) -> Tensor:
        """(mean + std * normal) * scale + bias.

        Shapes    raw [N, 2C, h, w], means then stds; normals [N, C h w], fresh -> [N, C, h, w].
        """
        mean, std = raw.float().chunk(2, dim=1)
        scale, bias = self.scale.to(raw.device), self.bias.to(raw.device)
        return (mean + std * normals.reshape(mean.shape)) * scale + bias

    def decode(self, x: Tensor) -> Tensor:
        """ValueError: images come of latents by the VAE's decoder alone."""
        raise ValueError(
            f"latents of {self.shape[0]} channels are not images: they need their VAE's decoder."
        )

    def stored(self, x: Tensor) -> Tensor:
        """A posterior without spread: means and standard deviations of 0, [b, 2C, h, w]."""
        mean = self.unscale(x)
        return torch.cat([mean, torch.zeros_like(mean)], dim=1)

    def unscale(self, x: Tensor) -> Tensor:
        """The network's latents [N, C, h, w] -> what the VAE's decoder takes, (x - bias) / scale."""
        return (x.float() - self.bias.to(x.device)) / self.scale.to(x.device)
