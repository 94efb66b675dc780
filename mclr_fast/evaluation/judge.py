"""Several protocols over one set of images, each extractor looking once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest

from .collected import Collected, Collector
from .extractors.published import Extractor, make_extractors
from .image_sets import ImageSet, batches
from .protocols import PROTOCOLS, check_count, needs_of
from .references import Situation, find_references
from .rows import Metrics
from .statistics_files import Statistics


@dataclass
class Judge:
    """Judges sets of images of one size; all ranks call its methods, and get the same.

    Attributes: names of the protocols; references: as `find_references` gives them.
    """

    names: Sequence[str]
    extractors: Mapping[str, Extractor]
    references: Mapping[str, Mapping[str, Statistics]]
    ranks: Ranks

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        sources: Sequence[str | ImageSet],
        weights: Mapping[str, Path | None],
        num_images: int,
        size: tuple[int, int],
        batch_size: int,
        ranks: Ranks,
        stop: StopRequest,
        download: bool = False,
    ) -> Judge:
        """Load the extractors, find or make the references.

        Args: weights: by extractor, None for the usual cache, download: or for their address; num_images, of
            size (H, W), will be judged.
        Errors    RunError for missing weights, too few images, a reference that does not serve or fit.
        """
        extractors = make_extractors(list(needs_of(names, "images")), weights, ranks.device, download)
        check_count(names, num_images, {name: each.num_features for name, each in extractors.items()})
        here = Situation(extractors, size, ranks, stop, batch_size)
        references = find_references(sources, needs_of(names, "reference"), here)
        judge = cls(names, extractors, references, ranks)
        ranks.on_main(judge._check_references)
        return judge

    @property
    def chosen_by(self) -> str:
        """The first protocol that measures FD, or the first."""
        return next((name for name in self.names if "moments" in PROTOCOLS[name].reference), self.names[0])

    def collector(self, num_images: int) -> Collector:
        """What takes up so many images; `metrics` takes what it collects."""
        return Collector(self.extractors, needs_of(self.names, "images"), num_images, self.ranks)

    def metrics(self, collected: Mapping[str, Collected]) -> dict[str, Metrics]:
        """By protocol."""
        return self.ranks.on_main(lambda: {name: self._metrics(name, collected) for name in self.names})

    def of_images(self, images: ImageSet, batch_size: int, stop: StopRequest) -> dict[str, Metrics]:
        """The metrics of a set of images at hand or on disk."""
        collector = self.collector(len(images))
        for places, read in batches(images, batch_size, self.ranks, stop, "images"):
            collector.add(read, places)
        return self.metrics(collector.collected())

    def described(self) -> dict[str, Any]:
        """By protocol, what its metrics were measured with."""
        return self.ranks.on_main(lambda: {name: self._described(name) for name in self.names})

    def _metrics(self, name: str, collected: Mapping[str, Collected]) -> Metrics:
        protocol = PROTOCOLS[name]
        seen, reference = collected[protocol.extractor], self._reference(name)
        if "features" in protocol.images:  # their distances are the device's work
            seen, reference = (
                replace(each, features=each.features.to(self.ranks.device)) for each in (seen, reference)
            )
        return protocol.metrics(seen, reference)

    def _described(self, name: str) -> dict[str, Any]:
        protocol = PROTOCOLS[name]
        extractor = self.extractors[protocol.extractor]
        found = {"extractor": extractor.name, "weights": extractor.weights, "resize": extractor.resize}
        if protocol.k is not None:
            found["k"] = protocol.k
        for need in protocol.reference:
            statistics = self.references[protocol.extractor][need]
            found["reference"] = statistics.described()
            if need == "features":
                found["reference"]["num_images"] = len(statistics.features)
        return found

    def _reference(self, name: str) -> Collected | None:
        """What a protocol compares with; rank 0."""
        found = self.references.get(PROTOCOLS[name].extractor, {})
        moments, features = found.get("moments"), found.get("features")
        seen: Tensor | None = None if features is None else features.features
        return None if not found else Collected((moments or features).moments, seen)

    def _check_references(self) -> None:
        """There are as many images of the reference as features of them are needed."""
        for name in self.names:
            if "features" in PROTOCOLS[name].reference:
                features = self._reference(name).features
                check_count(
                    [name], len(features), {PROTOCOLS[name].extractor: features.shape[1]}, "real images"
                )
