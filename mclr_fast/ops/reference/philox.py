"""Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same on every backend.

A draw is a pure function of (seed, stream, position, element). `stream` says what the numbers are
for, `position` which sample of the run they belong to: so neither the rank, the micro-batch nor the
order of calls can change them.
"""

import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Ten Philox rounds.

    Shapes    counter: four int64 tensors holding 32-bit words, broadcastable -> [..., 4].
    Dtypes    int64 tensors with values in [0, 2^32).
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        # A wrapped 64-bit product keeps its low word; after an arithmetic shift and a mask, its high.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def random_words(seed: int, stream: int, position: Tensor, count: int) -> Tensor:
    """Uniform 32-bit words. position: int64 [N] -> int64 [N, count], values in [0, 2^32)."""
    block = torch.arange((count + 3) // 4, device=position.device)
    position = position[:, None]
    counter = (block, torch.full_like(block, stream), position & _MASK, (position >> 32) & _MASK)
    words = philox4x32(counter, (seed & _MASK, (seed >> 32) & _MASK))
    return words.flatten(1)[:, :count]


def random_uniform(seed: int, stream: int, position: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) with 24 bits. position: int64 [N] -> float32 [N, count]."""
    return (random_words(seed, stream, position, count) >> 8).float() * 2.0**-24


def random_normal(seed: int, stream: int, position: Tensor, count: int) -> Tensor:
    """Standard normals by Box-Muller, word pairs (0, 1) and (2, 3) of a block giving two each.

    Shapes    position: int64 [N] -> float32 [N, count].
    Accuracy  computed in float64 and rounded; |z| <= sqrt(2 ln 2^24) = 5.77.
    """
    words = random_words(seed, stream, position, count + count % 2)
    uniform = (words >> 8).double()
    radius = (-2 * ((uniform[:, 0::2] + 1) * 2.0**-24).log()).sqrt()
    angle = uniform[:, 1::2] * (2.0**-24 * 2 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return pairs.flatten(1)[:, :count].float()
