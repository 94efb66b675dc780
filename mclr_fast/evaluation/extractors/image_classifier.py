"""A small convolutional classifier of any images, whose features are of the data it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fitting import exact_float32

NUM_FEATURES = 64
LARGEST_SIDE = 64  # pixels; larger images are made smaller first
FIRST_WIDTH, LAST_WIDTH = 16, 128  # channels
SMALLEST_SIDE = 4  # pixels, down to which convolutions halve


class ImageClassifier(nn.Module):
    """3x3 convolutions, each halving, down to 4 pixels; 64 standardised features; one linear layer.

    The features are standardised on the training images (batch normalisation without gain), so that FD has no
    arbitrary scale.

    Args: image_shape (C, H, W), as stored; num_classes M. Attributes: arguments, to build it again.
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int):
        super().__init__()
        self.arguments: dict[str, Any] = {"image_shape": list(image_shape), "num_classes": num_classes}
        channels, *stored = image_shape
        self.size = seen_size(stored)
        size, width, stride = self.size, FIRST_WIDTH, 1
        layers: list[nn.Module] = []
        while stride == 1 or max(size) > SMALLEST_SIDE:
            convolution = nn.Conv2d(channels, width, 3, padding=1, stride=stride, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            size = tuple(-(-side // stride) for side in size)
            channels, width, stride = width, min(2 * width, LAST_WIDTH), 2
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(channels * size[0] * size[1], NUM_FEATURES),
            nn.BatchNorm1d(NUM_FEATURES, affine=False),
        )
        self.head = nn.Linear(NUM_FEATURES, num_classes)
        self.to(memory_format=torch.channels_last)  # a fifth faster to train on a CPU

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: 0..255, [B,C,h,w] of the size seen -> features float32 [B,64], logits float32 [B,M]."""
        x = images.float() / 127.5 - 1
        features = self.body(x.contiguous(memory_format=torch.channels_last))
        return features, self.head(features)

    @torch.no_grad()
    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Stored images, uint8 [B,C,H,W], on any device -> the same."""
        with exact_float32():
            return self(shrink(images.to(self.head.weight.device), self.size))


def seen_size(size: Sequence[int]) -> tuple[int, int]:
    """(h, w) that images of (H, W) are seen at: at most 64 pixels, in their proportions."""
    factor = min(1.0, LARGEST_SIDE / max(size))
    return tuple(max(round(side * factor), 1) for side in size)


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [B,C,H,W] -> uint8 [B,C,h,w]: bilinear, antialiased, rounded."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    smaller = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return smaller.round().clamp(0, 255).byte()


def resize_words(size: Sequence[int]) -> str:
    """What it does to images of (H, W) first."""
    seen = seen_size(size)
    return "none" if seen == tuple(size) else f"bilinear with antialias to {seen[0]}x{seen[1]}"
