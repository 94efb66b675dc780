"""What extractors see in a set of images, taken up batch by batch on all ranks: moments, features, logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mclr_fast.runtime.process.ranks import Ranks

from .extractors.published import Extractor
from .metrics.moments import Moments, MomentSums


@dataclass(frozen=True)
class Collected:
    """What one extractor saw in a set of images.

    Attributes: moments, on all ranks; features float32 [n,D] and logits float32 [n,M], in the set's order, on
    rank 0 and where they were asked for, else None.
    """

    moments: Moments
    features: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class Against:
    """What a set of images is judged against.

    Attributes: reference, and heldout images, where a protocol asked for them; labels int64 [n], the images'
    classes as far as they are known; k, the neighbours of precision and recall.
    """

    reference: Collected | None = None
    heldout: Collected | None = None
    labels: Tensor | None = None
    k: int | None = None


class Collector:
    """Takes up a set of images once for all protocols that judge it; no image is kept.

    Moments are summed over ranks at the end. Features and logits, where they are asked for, go to rank 0 as
    they are seen, into one tensor of their final size: 400 MB for 50,000 images of 2,048 features.
    """

    def __init__(
        self,
        extractors: Mapping[str, Extractor],
        needs: Mapping[str, set[str]],
        num_images: int,
        ranks: Ranks,
        keep: Sequence[int] | None = None,
    ):
        """needs: by extractor, of "moments", "features", "logits"; keep: the places in the set, rising, whose
        features and logits are kept (None: all)."""
        self.extractors = {name: extractors[name] for name in needs}
        self.ranks = ranks
        self._sums = {name: MomentSums(e.num_features, ranks.device) for name, e in self.extractors.items()}
        self._parts = [
            (name, part) for name, wanted in needs.items() for part in sorted(wanted - {"moments"})
        ]
        places = torch.arange(num_images) if keep is None else torch.tensor(keep, dtype=torch.int64)
        self._slots = torch.full((num_images,), -1).index_copy(0, places, torch.arange(len(places)))
        self._num_kept = len(places)
        self._whole: dict[tuple[str, str], Tensor] = {}

    def add(self, images: Tensor, places: range) -> None:
        """See uint8 images [B,C,H,W], which have these places in the set; all ranks call it, B may be 0."""
        seen = {}
        if len(places):
            for name, extract in self.extractors.items():
                features, logits = extract(images)
                self._sums[name].add(features)
                seen[name] = {"features": features, "logits": logits}
        if self._parts:
            self._gather(seen, self._slots[places.start : places.stop])

    def collected(self) -> dict[str, Collected]:
        """By extractor; all ranks call it, once."""
        found = {}
        for name, sums in self._sums.items():
            parts = {part: self._whole.get((name, part)) for part in ("features", "logits")}
            found[name] = Collected(sums.moments(self.ranks), **parts)
        return found

    def _gather(self, seen: dict[str, dict[str, Tensor]], slots: Tensor) -> None:
        """This batch's rows from all ranks to their slots on rank 0."""
        kept = slots >= 0
        rows = [seen[name][part].float().cpu()[kept] for name, part in self._parts] if seen else []
        for their_slots, theirs in self.ranks.gather_on_main((slots[kept], rows)):
            for key, tensor in zip(self._parts, theirs, strict=bool(theirs)):
                if key not in self._whole:
                    self._whole[key] = torch.empty(self._num_kept, tensor.shape[1])
                self._whole[key][their_slots] = tensor
