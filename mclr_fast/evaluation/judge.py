"""Several protocols over one set of images, each extractor looking once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from .collected import Against, Collected, Collector
from .extractors.published import Extractor, make_extractors
from .image_sets import FirstImages, ImageSet, batches, class_labels
from .metrics.bootstrap import bootstrap_frechet_difference
from .own_classifier import Plan, own_classifier
from .protocols import PROTOCOLS, Protocol, check_count, is_trained, needs_of
from .references import Situation, find_references
from .rows import Metrics
from .statistics_files import Statistics


@dataclass(frozen=True)
class Panel:
    """Who judges, and what it compares with, as options say it; nothing of it is loaded.

    Attributes:
        names: of the protocols.
        sources: paths of statistics files and of data sets, or images; the first that serves is taken.
        heldout: images that were not trained on: the row of real images, and the second FD of some protocols.
        weights: files by extractor, None for the usual cache; download: or for their address.
        best_by: the protocol whose FD chooses; None: the first that measures one.
        neighbors: k, where it is not the protocols' own.
        folder: where a classifier that is trained for them is kept too, beside the cache.
    """

    names: Sequence[str]
    sources: Sequence[str | ImageSet] = ()
    heldout: ImageSet | None = None
    weights: Mapping[str, Path | None] = field(default_factory=dict)
    download: bool = False
    best_by: str | None = None
    neighbors: int | None = None
    folder: Path | None = None

    @property
    def chosen_by(self) -> str:
        """The protocol whose FD chooses; without any FD the first."""
        measuring = (name for name in self.names if PROTOCOLS[name].measures_fd)
        return self.best_by or next(measuring, self.names[0])

    @cached_property
    def plan(self) -> Plan | None:
        """Of the classifier that is trained for them, where one is. RunError for data that none can be of."""
        return Plan.of(self.sources, self.heldout) if is_trained(self.names) else None

    @property
    def protocols(self) -> dict[str, Protocol]:
        """By name, with the neighbours asked for."""
        found = {name: PROTOCOLS[name] for name in self.names}
        if (k := self.neighbors) is None:
            return found
        return {
            name: replace(each, k=k, minimum=lambda _: k + 1) if each.k else each
            for name, each in found.items()
        }


@dataclass
class Judge:
    """Judges sets of images of one size; all ranks call its methods, and get the same.

    Attributes: protocols, by name; chosen_by, whose FD chooses; references: as `find_references` gives them;
    heldout: what is seen of its images, by extractor.
    """

    protocols: Mapping[str, Protocol]
    chosen_by: str
    extractors: Mapping[str, Extractor]
    references: Mapping[str, Mapping[str, Statistics]]
    ranks: Ranks
    heldout_images: ImageSet | None = None
    heldout: Mapping[str, Collected] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        panel: Panel,
        num_images: int,
        image_shape: tuple[int, ...],
        batch_size: int,
        ranks: Ranks,
        stop: StopRequest,
    ) -> Judge:
        """Load the extractors, find or make the references.

        Args: num_images, of image_shape (C, H, W), will be judged.
        Errors    RunError for missing weights, too few images, a reference that does not serve or fit.
        """
        protocols, names = panel.protocols, list(panel.names)
        sources, heldout = panel.sources, panel.heldout
        if (plan := panel.plan) is not None:
            trained = own_classifier(plan, panel.folder, ranks, stop)
            extractors = {trained.name: trained.extractor(ranks.device, plan.class_names)}
            sources, heldout = [plan.reference], plan.heldout
        else:
            extractors = make_extractors(
                list(needs_of(names, "images")), panel.weights, ranks.device, panel.download
            )
        for each in extractors.values():
            if each.image_shape not in (None, tuple(image_shape)):
                raise RunError(
                    f"{', '.join(names)} judges images {each.image_shape}, these are {tuple(image_shape)}: "
                    "judge them by another --protocol."
                )
        check_count(protocols, num_images, {name: each.num_features for name, each in extractors.items()})
        here = Situation(extractors, tuple(image_shape[1:]), ranks, stop, batch_size)
        references = find_references(sources, needs_of(names, "reference"), here)
        judge = cls(protocols, panel.chosen_by, extractors, references, ranks, heldout)
        ranks.on_main(judge._check_references)
        if heldout is not None and (needs := needs_of(names, "heldout")):
            judge.heldout = judge._seen(heldout, needs, batch_size, stop, "held-out images")
        return judge

    @property
    def kept_features(self) -> str | None:
        """The extractor whose features are worth keeping with a row, for `difference`; None: none."""
        chosen = self.protocols[self.chosen_by]
        return chosen.extractor if chosen.has_intervals else None

    @property
    def classifier(self) -> str | None:
        """Which classifier judges, where one was trained for it: rows by two do not compare."""
        protocol = self.protocols[self.chosen_by]
        return self.extractors[protocol.extractor].weights if protocol.is_trained else None

    def collector(self, num_images: int) -> Collector:
        """What takes up so many images; `metrics` takes what it collects."""
        return Collector(self.extractors, self._needs("images"), num_images, self.ranks)

    def metrics(
        self, collected: Mapping[str, Collected], labels: Tensor | None = None, *, is_heldout: bool = False
    ) -> dict[str, Metrics]:
        """By protocol.

        Args: labels int64 [n]: the classes asked for; is_heldout leaves out the FD of a set with itself.
        """

        def measure() -> dict[str, Metrics]:
            return {name: self._metrics(name, collected, labels, is_heldout) for name in self.protocols}

        return self.ranks.on_main(measure)

    def of_images(self, images: ImageSet, batch_size: int, stop: StopRequest) -> dict[str, Metrics]:
        """The metrics of a set of images at hand or on disk."""
        seen = self._seen(images, self._needs("images"), batch_size, stop, "images")
        return self.metrics(seen, self._labels(images))

    def real(self, num_images: int, batch_size: int, stop: StopRequest) -> tuple[dict[str, Metrics], int]:
        """The metrics of that many held-out images, or of all there are; and how many they were."""
        images = FirstImages(self.heldout_images, num_images)
        seen = self._seen(images, self._needs("images"), batch_size, stop, "real images")
        return self.metrics(seen, self._labels(images), is_heldout=True), len(images)

    def difference(self, one: Tensor, other: Tensor) -> tuple[float, float, float]:
        """FD(one) - FD(other) with its bootstrap interval, of features [n,D] from the same sampling seeds.

        Of the extractor of `kept_features`; on rank 0.
        """
        _, mu, sigma = self._reference(self.protocols[self.chosen_by]).moments
        return bootstrap_frechet_difference(one, other, mu, sigma)

    def described(self) -> dict[str, Any]:
        """By protocol, what its metrics were measured with."""
        return self.ranks.on_main(lambda: {name: self._described(p) for name, p in self.protocols.items()})

    def _labels(self, images: ImageSet) -> Tensor | None:
        if not any(protocol.needs_labels for protocol in self.protocols.values()):
            return None
        (extractor,) = self.extractors.values()
        return class_labels(images, extractor.class_names)

    def _needs(self, whose: str) -> dict[str, set[str]]:
        return needs_of(list(self.protocols), whose)

    def _seen(
        self, images: ImageSet, needs: Mapping[str, set[str]], batch_size: int, stop: StopRequest, words: str
    ) -> dict[str, Collected]:
        """What the extractors see in a set of images."""
        collector = Collector(self.extractors, needs, len(images), self.ranks)
        for places, read in batches(images, batch_size, self.ranks, stop, words):
            collector.add(read, places)
        return collector.collected()

    def _metrics(
        self, name: str, collected: Mapping[str, Collected], labels: Tensor | None, is_heldout: bool
    ) -> Metrics:
        protocol = self.protocols[name]
        seen, reference = collected[protocol.extractor], self._reference(protocol)
        if "features" in protocol.images:  # their distances are the device's work
            seen, reference = (
                replace(each, features=each.features.to(self.ranks.device)) for each in (seen, reference)
            )
        heldout = None if is_heldout else self.heldout.get(protocol.extractor)
        return protocol.metrics(seen, Against(reference, heldout, labels, protocol.k))

    def _described(self, protocol: Protocol) -> dict[str, Any]:
        extractor = self.extractors[protocol.extractor]
        found = {"extractor": extractor.name, "weights": extractor.weights, "resize": extractor.resize}
        found |= extractor.about
        if protocol.k is not None:
            found["k"] = protocol.k
        for need in sorted(protocol.reference, reverse=True):
            statistics = self.references[protocol.extractor][need]
            found["reference"] = {**statistics.described(), "num_images": statistics.count_of(need)}
        return found

    def _reference(self, protocol: Protocol) -> Collected | None:
        """What a protocol compares with; rank 0."""
        found = self.references.get(protocol.extractor, {})
        moments, features = found.get("moments"), found.get("features")
        seen: Tensor | None = None if features is None else features.features
        return None if not found else Collected((moments or features).moments, seen)

    def _check_references(self) -> None:
        """The reference is of as many images as a protocol needs, where it says of how many it is."""
        for name, protocol in self.protocols.items():
            widths = {protocol.extractor: self.extractors[protocol.extractor].num_features}
            for need in protocol.reference:
                statistics = self.references[protocol.extractor][need]
                if count := statistics.count_of(need):  # EDM's .npz does not say
                    check_count({name: protocol}, count, widths, "real images")
