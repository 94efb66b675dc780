"""How small classifiers of images are trained: seeded, in float32, on images slightly turned and shifted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEARNING_RATE = 2e-3
Net = TypeVar("Net", bound=nn.Module)


def fit(
    make: Callable[[], Net],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    num_steps: int,
    seed: int,
    outside: str = "zeros",
    device: torch.device | None = None,
    between: Callable[[], None] = lambda: None,
) -> Net:
    """Train `make()` from scratch -> it, in eval mode; the same weights for the same arguments and machine.

    Args:
        make: gives a network, on the CPU: images [B,C,H,W] of 0..255 -> features, logits [B,M].
        images: uint8 [n,C,H,W]; labels: int64 [n].
        outside: what a turned image has there, "zeros" or "border".
        between: called before each step.
    """
    device = device or torch.device("cpu")
    devices = [device] if device.type == "cuda" else []
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=devices), exact_float32():
        torch.manual_seed(seed)
        net = make().to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        pixels, classes = (torch.from_numpy(array).to(device) for array in (images, labels))
        for step in range(num_steps):
            between()
            if step * batch_size % len(images) < batch_size:
                order = torch.randperm(len(images), generator=generator)
            index = order[(torch.arange(batch_size) + step * batch_size) % len(images)].to(device)
            _, logits = net(_augment(pixels[index].float(), generator, outside))
            loss = F.cross_entropy(logits, classes[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def exact_float32():
    """A context in which a GPU's convolutions are float32 (not TF32) and give the same bits each time."""
    return torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
    )


def _augment(images: Tensor, generator: torch.Generator, outside: str) -> Tensor:
    """Rotation up to 10 degrees, scale up to 10%, shift up to 1.5 pixels."""
    draw = torch.rand(len(images), 4, generator=generator) * 2 - 1
    angle, scale = draw[:, 0] * math.radians(10), 1 + 0.1 * draw[:, 1]
    shift = draw[:, 2:] * (3 / images.shape[-1])
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=outside, align_corners=False)
