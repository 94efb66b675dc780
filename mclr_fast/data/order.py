"""Which image comes when: a counter-based permutation of every epoch."""

from __future__ import annotations

import functools

import numpy as np
import torch

from mclr_fast import ops

from .rng import ORDER_STREAM


def expected_one_class(labels: np.ndarray, batch_size: int, num_steps: int) -> float:
    """How many of so many minibatches are expected to hold one class alone. labels: int64 [n], of the data.

    Exact for minibatches within an epoch, which are draws without replacement.
    """
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    counts = counts[counts >= batch_size]
    taken = np.arange(batch_size, dtype=np.float64)
    shares = (counts[:, None] - taken) / (len(labels) - taken) if len(counts) else np.zeros((0, 1))
    return num_steps * float(shares.prod(axis=1).sum())


class SampleOrder:
    """The image at each position of a run: position p is place p mod n of epoch p div n.

    Each epoch is a permutation that depends on (seed, epoch) alone: the same at any world size and
    after any resume, no image lost or repeated.
    """

    def __init__(self, num_samples: int, seed: int):
        self.num_samples = num_samples
        self.seed = seed
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Image index of each position in the run: int64 [m] -> int64 [m]."""
        epochs, places = np.divmod(positions, self.num_samples)
        result = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            result[chosen] = self._permutation(int(epoch))[places[chosen]]
        return result

    def _draw_permutation(self, epoch: int) -> np.ndarray:
        position = torch.tensor([epoch])
        words = ops.random_words(self.seed, ORDER_STREAM, position, 2 * self.num_samples)
        keys = (words[0, 0::2] << 31) | (words[0, 1::2] >> 1)  # 63 random bits each
        return keys.argsort(stable=True).numpy()
