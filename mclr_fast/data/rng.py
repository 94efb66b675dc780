"""What a run draws: counter-based, keyed by (seed, sample position), never by rank or call order."""

from __future__ import annotations

import torch
from torch import Tensor

from mclr_fast import ops

# Philox streams of a run; dropout masks lie above DROPOUT_STREAM, one a block.
ORDER_STREAM, SIGMA_STREAM, NOISE_STREAM, LABEL_DROPOUT_STREAM, PAIRING_STREAM, LATENT_STREAM = range(6)
SAMPLE_STREAM, FLIP_STREAM = 6, 7
DROPOUT_STREAM = 1 << 16


def sigma_normals(seed: int, position: Tensor) -> Tensor:
    """The normal that sets each sample's noise level. position: int64 [N] -> float32 [N]."""
    return ops.random_normal(seed, SIGMA_STREAM, position, 1)[:, 0]


def sigma_uniforms(seed: int, position: Tensor) -> Tensor:
    """The same for laws that begin with a uniform number, in [0, 1). int64 [N] -> float32 [N]."""
    return ops.random_uniform(seed, SIGMA_STREAM, position, 1)[:, 0]


def latent_normals(seed: int, position: Tensor, count: int) -> Tensor:
    """Normals that sample VAE latents from their posterior. int64 [N] -> float32 [N, count]."""
    return ops.random_normal(seed, LATENT_STREAM, position, count)


def sample_uniforms(seed: int, position: Tensor, count: int) -> Tensor:
    """What picks a row's samples of its class, by column. int64 [N] -> float32 [N, count] in [0, 1)."""
    return ops.random_uniform(seed, SAMPLE_STREAM, position, count)


def flips(seed: int, position: Tensor, count: int) -> Tensor:
    """Which of a row's images are mirrored, by column. int64 [N] -> bool [N, count]."""
    return ops.random_uniform(seed, FLIP_STREAM, position, count) < 0.5


def branch_uniforms(seed: int, position: Tensor, count: int) -> Tensor:
    """What decides which branches of a network a row goes without. int64 [N] -> float32 [N, count]."""
    return ops.random_uniform(seed, DROPOUT_STREAM, position, count)


def dropped_labels(seed: int, position: Tensor, labels: Tensor, probability: float) -> Tensor:
    """labels with each one replaced by -1 with this probability. int64 [N] -> int64 [N]."""
    if probability == 0:
        return labels
    drop = ops.random_uniform(seed, LABEL_DROPOUT_STREAM, position, 1)[:, 0] < probability
    return labels.masked_fill(drop, -1)


def pairing_generator(seed: int, images_seen: int) -> torch.Generator:
    """The CPU generator that pairs the step after `images_seen`: every rank draws the same pairs."""
    high, low = ops.random_words(seed, PAIRING_STREAM, torch.tensor([images_seen]), 2)[0].tolist()
    return torch.Generator().manual_seed((high << 32 | low) >> 1)
