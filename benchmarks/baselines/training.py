"""What the baselines' training steps share: the minibatch, and what follows the backward pass."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .plain_net import Conv, normalize


class Batch(NamedTuple):
    """x, x_noisy: float32 [N,C,H,W]; sigma, weight: [N]; labels: int64 [N,R], column 0 the right ones."""

    x: Tensor
    x_noisy: Tensor
    sigma: Tensor
    weight: Tensor
    labels: Tensor


class ImageData:
    """Random images of random classes in memory, as a data set of the package."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], size: int = 256):
        rng = np.random.default_rng(0)
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.labels = np.arange(size) % num_classes
        self._images = rng.integers(0, 256, (size, *image_shape), dtype=np.uint8)

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        return self._images[indices]


def draw_batch(
    data: ImageData, num_images: int, num_negatives: int, sigma_data: float = 0.5, device: str = "cpu"
) -> Batch:
    """Images, noise and K wrong labels an image, drawn with torch's generators (Algorithm 1)."""
    index = torch.randint(len(data), (num_images,)).numpy()
    x = torch.from_numpy(data.images(index)).to(device).float() / 127.5 - 1
    right = torch.from_numpy(data.labels[index]).to(device)
    others = (right[:, None] != right[None, :]).float()
    wrong = right[torch.multinomial(others, num_negatives, replacement=True)]
    sigma = (torch.randn(num_images, device=device) * 1.2 - 0.5).exp()
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    x_noisy = x + sigma[:, None, None, None] * torch.randn_like(x)
    return Batch(x, x_noisy, sigma, weight, torch.cat([right[:, None], wrong], dim=1))


def conv_weights(net: nn.Module) -> list[nn.Parameter]:
    return [module.weight for module in net.modules() if isinstance(module, Conv)]


@torch.no_grad()
def force_weight_norm_(weights: list[nn.Parameter]) -> None:
    """EDM2, eq. 66."""
    for weight in weights:
        weight.copy_(normalize(weight))


def rounding(reference: Tensor, dtype: torch.dtype) -> float:
    """Absolute error that evaluating in `dtype` may leave in a network's output."""
    return 50 * torch.finfo(dtype).eps * max(reference.abs().max().item(), math.ulp(1.0))
