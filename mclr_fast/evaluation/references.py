"""What images are compared with: statistics files, and data sets whose statistics are made once and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mclr_fast.models.storage import published
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from .collected import Collector
from .extractors.published import Extractor, make_extractors
from .image_sets import ImageSet, batches, open_images
from .parts import PartImages
from .protocols import PROTOCOLS, check_count, needs_of
from .statistics_files import (
    Statistics,
    check_writable,
    holds,
    read_statistics,
    write_reference,
    write_statistics,
)

MAX_FEATURES = 50_000  # images of a data set that precision, recall and KID compare with
Needs = Mapping[str, set[str]]
"""By extractor, of "moments" and "features"."""
Offer = tuple[Needs, dict[str, Statistics]]
"""What a source serves, and, on rank 0, the statistics by extractor."""


@dataclass(frozen=True)
class Situation:
    """What references are looked for with: extractors, (H, W) of the images that are judged, this process."""

    extractors: Mapping[str, Extractor]
    size: tuple[int, int]
    ranks: Ranks
    stop: StopRequest
    batch_size: int


def find_references(
    sources: Sequence[str | ImageSet], needs: Needs, here: Situation
) -> dict[str, dict[str, Statistics]]:
    """By extractor and need, the statistics of the first source that serves it: on rank 0, else nothing.

    Args: sources: paths of statistics files and of data sets, or images at hand. All ranks call it.
    Errors    RunError, on all ranks, where no source serves, or one does not fit what is judged.
    """
    missing = {name: set(wanted) for name, wanted in needs.items()}
    found: dict[str, dict[str, Statistics]] = {name: {} for name in needs}
    for source, look in _looks(sources, here):
        wanted = {name: rest for name, rest in missing.items() if rest}
        if not wanted:
            break
        offered, statistics = look(source, wanted, here)
        for name in offered:
            served = offered[name] & missing[name]
            missing[name] = missing[name] - served
            if here.ranks.is_main:
                found[name].update(dict.fromkeys(served, statistics[name]))
    for name, rest in missing.items():
        if rest:
            raise RunError(_nothing_serves(name, rest, sources))
    return found


def save_reference(
    source: str,
    path: Path,
    names: Sequence[str],
    weights: Mapping[str, Path | None],
    batch_size: int,
    ranks: Ranks,
    stop: StopRequest,
    download: bool = False,
) -> dict[str, Any]:
    """Write a data set's moments as a reference for these protocols: EDM2's .pkl, or EDM's .npz.

    Those kept beside the data set are taken. All ranks call it -> what was written, in words.
    Args: source: as `open_images` takes it; names of protocols that measure FD; the others as `Judge.of`.
    Errors    RunError for a file or protocols that it cannot be, missing weights, too few images.
    """
    needs = needs_of(names, "reference")
    for name in names:
        if not PROTOCOLS[name].measures_fd:
            raise RunError(f"{path}: {name} compares with no moments; ask for fid, fd-dinov2, or both.")
    if path.absolute() == Path(source).absolute():
        raise RunError(f"{path} holds the images themselves: name another file for their statistics.")
    check_writable(path, list(needs))
    images = open_images(source)
    extractors = make_extractors(list(needs), weights, ranks.device, download)
    check_count(
        {name: PROTOCOLS[name] for name in names},
        len(images),
        {name: each.num_features for name, each in extractors.items()},
    )
    here = Situation(extractors, tuple(images.image_shape[1:]), ranks, stop, batch_size)
    found = find_references([source], {name: {"moments"} for name in needs}, here)

    def write() -> dict[str, Any]:
        statistics = [found[name]["moments"] for name in needs]
        write_reference(path, statistics)
        return {"written": str(path), "statistics": {each.extractor: each.described() for each in statistics}}

    return ranks.on_main(write)


def _looks(
    sources: Sequence[str | ImageSet], here: Situation
) -> Iterator[tuple[str | ImageSet, Callable[..., Offer]]]:
    """Each source, and how it is looked into; a file of statistics and images in both ways."""
    for named in sources:
        source = _local(named, here)
        has_statistics, has_images = holds(source) if isinstance(source, str) else (False, True)
        if has_statistics:
            yield source, _of_file
        if has_images:
            yield source, _of_images


def _local(source: str | ImageSet, here: Situation) -> str | ImageSet:
    """The file of a published reference's name or of an address, downloaded first; anything else itself."""
    known = published.find(source) if isinstance(source, str) and not Path(source).exists() else None
    if known is not None and known.side is not None and here.size != (known.side, known.side):
        raise RunError(_other_size(source, (known.side, known.side), here.size))
    try:
        file = published.local(source, "statistics") if isinstance(source, str) else None
    except ValueError as error:
        raise RunError(str(error)) from error
    return source if file is None else str(file)


def _of_file(path: str, wanted: Needs, here: Situation) -> Offer:
    """What a file of statistics offers."""
    statistics: dict[str, Statistics] = {}

    def read() -> dict[str, set[str]]:
        statistics.update({each.extractor: each for each in read_statistics(path)})
        for name in set(wanted) & set(statistics):
            _check_fit(statistics[name], path, here)
        return {
            name: {"moments"} | ({"features"} if each.features is not None else set())
            for name, each in statistics.items()
            if name in wanted
        }

    return here.ranks.on_main(read), statistics


def _of_images(source: str | ImageSet, wanted: Needs, here: Situation) -> Offer:
    """All that is wanted of a data set: kept beside it, or made now and kept."""
    images = open_images(source) if isinstance(source, str) else source
    name = source if isinstance(source, str) else getattr(source, "source", "the reference")
    if tuple(images.image_shape[1:]) != here.size:
        raise RunError(_other_size(name, images.image_shape[1:], here.size))
    kept = {extractor: _kept_at(source, extractor) for extractor in wanted}

    def read_kept() -> dict[str, Statistics]:
        read = {e: _kept(path, images, e, wanted[e], here) for e, path in kept.items() if path is not None}
        return {e: replace(each, source=name) for e, each in read.items() if each is not None}

    statistics = read_kept() if here.ranks.is_main else {}
    left = {e: wanted[e] for e in here.ranks.on_main(lambda: [e for e in wanted if e not in statistics])}
    if left:
        made = _seen(images, name, left, here)
        if here.ranks.is_main:
            for extractor, each in made.items():
                _keep(kept[extractor], each)
        statistics.update(made)
    return wanted, statistics


def _seen(images: ImageSet, name: str, wanted: Needs, here: Situation) -> dict[str, Statistics]:
    """Look at all images of a set once, with all extractors."""
    if len(images) < 2:
        raise RunError(f"{name} holds {len(images)} images: a reference needs at least 2.")
    most = [here.extractors[name].max_features for name, parts in wanted.items() if "features" in parts]
    keep = _chosen(len(images), min(filter(None, most), default=None)) if most else []
    collector = Collector(here.extractors, wanted, len(images), here.ranks, keep)
    for places, read in batches(images, here.batch_size, here.ranks, here.stop, f"reference {name}"):
        collector.add(read, places)
    size = tuple(int(side) for side in images.image_shape[1:])
    return {
        extractor: Statistics(
            extractor,
            name,
            seen.moments,
            seen.features,
            size,
            here.extractors[extractor].weights,
            here.extractors[extractor].resize,
            images.fingerprint,
        )
        for extractor, seen in collector.collected().items()
    }


def _chosen(num_images: int, most: int | None = None) -> np.ndarray:
    """Of a large set, `most` or MAX_FEATURES at random, chosen as EDM2's max_size does with seed 0."""
    most = most or MAX_FEATURES
    order = np.arange(num_images)
    if num_images > most:
        np.random.RandomState(0).shuffle(order)
    return np.sort(order[:most])


def _kept_at(source: str | ImageSet, extractor: str) -> Path | None:
    """Where a data set's statistics are kept: beside it; None for what is no file or folder."""
    part = ""
    if isinstance(source, PartImages):
        source, part = source.source, f".{source.part}"
    if not isinstance(source, str) or not Path(source).exists():
        return None
    path = Path(source).absolute()
    return path.with_name(f"{path.name}{part}.{extractor}.npz")


def _kept(
    path: Path, images: ImageSet, extractor: str, wanted: set[str], here: Situation
) -> Statistics | None:
    """Those kept before, if they are of these images and weights and hold what is wanted."""
    if not path.exists():
        return None
    (kept,) = read_statistics(str(path))
    of = (kept.extractor, kept.images, kept.weights)
    fits = of == (extractor, images.fingerprint, here.extractors[extractor].weights)
    return kept if fits and ("features" not in wanted or kept.features is not None) else None


def _keep(path: Path | None, statistics: Statistics) -> None:
    """Write them for the next time; where that cannot be done, a line says so."""
    if path is not None:
        try:
            write_statistics(path, statistics)
        except RunError:
            print(f"{path} cannot be written: these statistics are made again next time.", file=sys.stderr)


def _check_fit(statistics: Statistics, path: str, here: Situation) -> None:
    """RunError for statistics of another resolution, other weights or another width."""
    extractor = here.extractors[statistics.extractor]
    if statistics.size is not None and tuple(statistics.size) != here.size:
        raise RunError(_other_size(path, statistics.size, here.size))
    width = len(statistics.moments.mu)
    if width != extractor.num_features:
        raise RunError(
            f"{path} holds statistics of {width} features of {extractor.name}, and the weights given make "
            f"{extractor.num_features}: they belong to other networks."
        )
    if statistics.weights not in (None, extractor.weights):
        raise RunError(
            f"{path} was made with other weights of {extractor.name} than these (SHA-256 "
            f"{statistics.weights[:12]}, {extractor.weights[:12]}): make it again from its images."
        )


def _other_size(name: str, theirs: Sequence[int], ours: Sequence[int]) -> str:
    return (
        f"{name} is of images of {theirs[0]}x{theirs[1]}, and those that are judged are {ours[0]}x{ours[1]}: "
        "compare images of one resolution."
    )


def _nothing_serves(extractor: str, rest: set[str], sources: Sequence[str | ImageSet]) -> str:
    """Why no source gives what is left."""
    if not sources:
        return "there is nothing to compare with: name a data set or a statistics file with --ref."
    named = ", ".join(source for source in sources if isinstance(source, str))
    if rest == {"features"}:
        return (
            f"{named}: it holds no features of {extractor}, which precision, recall and KID compare with "
            "(EDM2's .pkl and EDM's .npz hold moments alone): name the data set too, with --data."
        )
    return (
        f"{named}: it holds no statistics of {extractor}, which a protocol sees images with: name a "
        "reference of that, or a data set."
    )
