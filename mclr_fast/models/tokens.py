"""Images to the tokens that a model is trained on, for the door `prepare`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from .family import Model
from .storage.files import read_config

BATCH = 16  # images encoded at once


class TokenEncoder:
    """The tokens of images, as a data set stores them: int16, one row an image."""

    def __init__(self, model: str, resolution: int, device: torch.device):
        """model: whose tokens, as `files.load` names one. ValueError where it has none, or other sizes."""
        described = Model.of(read_config(model))
        if described.facts.dtype != torch.int64:
            raise ValueError(f"{model} is trained on no tokens: give a VAR, or leave out --tokens")
        self.codec = described.codec(SimpleNamespace(image_shape=(3, resolution, resolution)))
        self.device = device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n,3,H,W] -> int16 [n,L]."""
        parts = (images[first : first + BATCH] for first in range(0, len(images), BATCH))
        tokens = [self.codec.encode(torch.from_numpy(part).to(self.device)).cpu().numpy() for part in parts]
        return np.concatenate(tokens).astype(np.int16)
