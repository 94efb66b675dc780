"""What an extractor sees in images, taken up batch by batch as they are made; no image is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mclr_fast.runtime.ranks import Ranks

Extractor = Callable[[Tensor], tuple[Tensor, Tensor]]
"""uint8 images [B,C,H,W] on any device -> features [B,D], class logits [B,M]."""


class Features(NamedTuple):
    """What an extractor sees in a set of images: features [n,D] and class probabilities [n,M]."""

    features: Tensor
    probs: Tensor


class FeatureCollector:
    """Features of a set of images that come in batches, and on several ranks."""

    def __init__(self, extract: Extractor):
        """extract: what sees the images."""
        self.extract = extract
        self._parts: list[tuple[range, Features]] = []

    @torch.no_grad()
    def add(self, images: Tensor, places: range) -> None:
        """See uint8 images [B,C,H,W], which have these places in the set."""
        if len(places) == 0:
            return
        features, logits = self.extract(images)
        seen = Features(features.float().cpu(), logits.float().cpu().softmax(dim=1))
        self._parts.append((places, seen))

    def gather(self, ranks: Ranks) -> Features:
        """What all ranks' collectors saw, by place, on the CPU of every rank; all ranks call it."""
        return _joined([part for parts in ranks.gather(self._parts) for part in parts])

    def whole(self) -> Features:
        """What this one saw, by place, on the CPU."""
        return _joined(self._parts)


def _joined(parts: list[tuple[range, Features]]) -> Features:
    features, probs = (in_order((places, seen[i]) for places, seen in parts) for i in range(2))
    return Features(features, probs)


def in_order(parts: Iterable[tuple[range, Tensor]]) -> Tensor:
    """Rows that were made in parts, each with its places in the whole, put together by place."""
    return torch.cat([rows for _, rows in sorted(parts, key=lambda part: part[0].start)])
