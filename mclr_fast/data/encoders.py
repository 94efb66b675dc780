"""Between a dataset's arrays and the range a model works in: EDM2's pixel and latent encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RGBEncoder:
    """Pixels: bytes 0..255 to and from [-1, 1]."""

    def encode(self, raw: Tensor) -> Tensor:
        """uint8 -> float32 of that shape, b / 127.5 - 1."""
        return raw.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        """Floating -> uint8 of that shape, 127.5 x + 128 clipped to [0, 255] and truncated."""
        return (x.float() * 127.5 + 128).clip(0, 255).to(torch.uint8)


class LatentEncoder:
    """Latents of a VAE (by default stabilityai/sd-vae-ft-mse's) to and from the model's range.

    A dataset stores the posterior's mean and standard deviation; every use draws a fresh sample and
    scales each channel from `raw_mean`, `raw_std` to `final_mean`, `final_std`.
    """

    def __init__(
        self,
        raw_mean: Sequence[float] = (5.81, 3.25, 0.12, -2.15),
        raw_std: Sequence[float] = (4.17, 4.62, 3.71, 3.28),
        final_mean: float = 0.0,
        final_std: float = 0.5,
        device: torch.device | str | None = None,
    ) -> None:
        shape = (-1, 1, 1)
        self.scale = final_std / torch.tensor(raw_std, device=device).view(shape)
        self.bias = final_mean - torch.tensor(raw_mean, device=device).view(shape) * self.scale

    def encode(self, raw: Tensor, normal: Tensor) -> Tensor:
        """(mean + std * normal) * scale + bias.

        Shapes    raw [N, 2C, h, w], means then stds; normal [N, C, h, w], fresh -> [N, C, h, w].
        """
        mean, std = raw.float().chunk(2, dim=1)
        return (mean + std * normal) * self.scale + self.bias

    def unscale(self, x: Tensor) -> Tensor:
        """The model's latents [N, C, h, w] -> what the VAE's decoder takes, (x - bias) / scale."""
        return (x.float() - self.bias) / self.scale
