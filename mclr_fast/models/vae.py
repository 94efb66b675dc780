"""Between images and the latents that EDM2's 512x512 models are trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH = 16  # images encoded or decoded at once


def open_vae(name_or_path: str, device: torch.device) -> Any:
    """A VAE of diffusers (AutoencoderKL), in eval mode, without gradients.

    A folder that diffusers wrote, or a name on the Hugging Face hub, which diffusers may download.

    Errors    ValueError, one line: diffusers is missing, there is no such VAE, or it has not 4 channels.
    """
    try:
        from diffusers import AutoencoderKL
    except ModuleNotFoundError:
        raise ValueError(
            "latents are made with diffusers, which is not installed: pip install 'mclr_fast[latents]'"
        ) from None
    try:
        vae = AutoencoderKL.from_pretrained(name_or_path, use_safetensors=True, low_cpu_mem_usage=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"no VAE at {name_or_path} ({reason}): give its folder or its name") from error
    if vae.config.latent_channels != 4:
        raise ValueError(
            f"the VAE at {name_or_path} has {vae.config.latent_channels} latent channels; EDM2's has 4"
        )
    return vae.to(device).eval().requires_grad_(False)


class VAEEncoder:
    """The posterior of a VAE, as EDM2 stores it."""

    def __init__(self, name_or_path: str, device: torch.device):
        """As `open_vae`."""
        self.vae = open_vae(name_or_path, device)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n,3,H,W] -> float32 [n,8,h,w], means then standard deviations; pixels go in as b / 255."""
        parts = []
        for first in range(0, len(images), BATCH):
            x = torch.from_numpy(images[first : first + BATCH]).to(self.device).float() / 255
            posterior = self.vae.encode(x).latent_dist
            parts.append(torch.cat([posterior.mean, posterior.std], dim=1).float().cpu().numpy())
        return np.concatenate(parts)


class VAEDecoder:
    """Images of a VAE's latents, as EDM2 makes them."""

    def __init__(self, name_or_path: str, device: torch.device):
        """As `open_vae`."""
        self.vae = open_vae(name_or_path, device)

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """The VAE's own latents [n,4,h,w], on its device -> uint8 [n,3,H,W]; [0, 1] to 0..255, truncated."""
        if not len(latents):  # a rank without a share; one latent gives the shape
            return self(latents.new_zeros(1, *latents.shape[1:]))[:0]
        parts = [self.vae.decode(part).sample for part in latents.float().split(BATCH)]
        return torch.cat([(part.clamp(0, 1) * 255).to(torch.uint8) for part in parts])
