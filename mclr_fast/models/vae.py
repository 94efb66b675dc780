"""Images to the latents that EDM2's 512x512 models are trained on."""

from __future__ import annotations

import numpy as np
import torch

BATCH = 16  # images encoded at once


class VAEEncoder:
    """The posterior of a VAE of diffusers (AutoencoderKL), as EDM2 stores it."""

    def __init__(self, name_or_path: str, device: torch.device):
        """A folder that diffusers wrote, or a name on the Hugging Face hub, which diffusers may download.

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
        self.vae = vae.to(device).eval()
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
