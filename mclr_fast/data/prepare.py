"""Labelled images, as they come, to an EDM2 data set: cropped, perhaps encoded, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mclr_fast.config import PrepareConfig
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.locks import owned_alone
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.options import Check
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.stages import progress_bar

from .loaders import default_threads
from .on_disk import TOKENS, EDM2Dataset
from .partial_zip import PartialZip
from .pictures import Images, Remarks, usable
from .sources import Classes, Reading, Scratch, Source
from .sources.class_counts import class_counts, empty_classes

Encoder = Callable[[np.ndarray], np.ndarray]
"""uint8 images [n,3,H,W] -> what is stored of them, float32 [n,...] or int16 [n,L]."""
PNG = {"compress_level": 0}  # as EDM2's: faster to read, 1.5 times as large
CHUNK = 128  # images between looks at signals; what another go begins anew


def prepare(config: PrepareConfig, make_encoder: Callable[[], Encoder] | None, stop: StopRequest) -> None:
    """Make config.out of config.source, or go on making it; verify it, or the source, where asked.

    make_encoder: makes what turns pixels into what is stored, called once the source is read; None: pixels.

    Errors    RunError, one line: a source or an image that cannot be used, an OUT that was made otherwise;
              Interrupted after a signal.
    """
    Check(config).at_least(1, "resolution")
    Check(config).at_least(0, "threads")
    if config.class_level is not None:
        Check(config).at_least(1, "class_level")
    try:
        if config.out is not None and config.out.exists():
            _check_made(config)
            say(True, f"{config.out} is there; remove it to make it again.")
        elif config.out is not None:
            with owned_alone(config.out.with_name(f".{config.out.name}.lock"), config.out):
                _make(config, make_encoder, stop)
        if config.verify:
            made = (
                EDM2Dataset(config.out)
                if config.out
                else EDM2Dataset(config.source, reading=_reading(config))
            )
            verify(made, config.threads or default_threads(), stop)
    except (ValueError, OSError) as error:
        raise RunError(f"{str(error).rstrip('.')}.") from error


def verify(dataset: EDM2Dataset, num_threads: int, stop: StopRequest) -> None:
    """Read and decode everything, and say what is there. RunError if any of it cannot be used."""
    labels = dataset.labels
    problems = []

    def problem(index: int) -> str | None:
        try:
            dataset.check(index)
        except (ValueError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(num_threads) as pool, progress_bar("verify", len(dataset), 0, True) as bar:
        for first in range(0, len(dataset), CHUNK):
            stop.check()
            found = list(pool.map(problem, range(first, min(first + CHUNK, len(dataset)))))
            problems += filter(None, found)
            bar.update(len(found))
    if problems:
        raise RunError(f"{problems[0]} ({len(problems)} of {len(dataset)} images cannot be used).")
    counts = np.bincount(labels)
    shape = "x".join(map(str, dataset.image_shape))
    for note in dataset.notes:
        say(True, f"note: {note}.")
    say(
        True,
        f"{dataset.path}: {len(dataset):,} images of {shape}, {np.count_nonzero(counts):,} of "
        f"{len(counts):,} classes, {counts[counts > 0].min():,} to {counts.max():,} images a class; "
        "every one can be read.",
    )
    say(True, f"{class_counts(labels, dataset.class_names)}.")


def _reading(config: PrepareConfig) -> Reading:
    return Reading(config.within, config.class_level)


def _made_with(config: PrepareConfig, source: Source | None) -> dict[str, Any]:
    """What makes a data set what it is, for its dataset.json; of a source, a hash of names and labels."""
    made_with = {
        "resolution": config.resolution,
        "pad": config.pad,
        "grey": config.grey,
        "class_names": config.class_names,
        "latents": config.latents and Path(config.latents).name,
        "tokens": config.tokens and Path(config.tokens).name,
        "mirror": config.mirror,
        "exif_rotation": config.exif_rotation,
    }
    if source is not None:
        listed = json.dumps([source.names, source.classes.labels.tolist()])
        made_with["images"] = hashlib.sha256(listed.encode()).hexdigest()
    return made_with


def _check_made(config: PrepareConfig) -> None:
    """ValueError if OUT, which is there, is not what these options make."""
    made = EDM2Dataset(config.out)
    said, source = made.made_with, None
    if said is None:  # by EDM2's tool, perhaps
        channels, resolution, _ = made.image_shape
        said = {"resolution": resolution} if channels == 3 else {}
        said["latents"] = None if channels == 3 else Path(config.latents or "some VAE").name
        said["tokens"] = None
    else:  # perhaps before there were all options
        said = {"tokens": None, "pad": False, "grey": False, "class_names": None, **said}
    if made.made_with is not None and config.source.exists():  # it may be gone, once OUT is there
        source = Source(config.source, _reading(config), Scratch(config.out.parent))
    wanted = _made_with(config, source)
    other = [name for name in said if name in wanted and said[name] != wanted[name]]
    words = {name: f"{name} {said[name]!r}, not {wanted[name]!r}" for name in other}
    words |= {"images": "of images of another SOURCE"} if "images" in words else {}
    if other:
        raise ValueError(
            f"{config.out} is there, and was made otherwise ({'; '.join(words.values())}): remove it to make "
            "it again, or choose another OUT"
        )


def _make(config: PrepareConfig, make_encoder: Callable[[], Encoder] | None, stop: StopRequest) -> None:
    if config.out.suffix != ".zip":
        raise ValueError(f"the data set to write, {config.out}, must end in .zip")
    source = Source(config.source, _reading(config), Scratch(config.out.parent))
    classes = _named(source, config.class_names)
    for note in [*source.notes, *classes.notes]:
        say(True, f"note: {note}.")
    say(
        True, f"{config.source}: {len(source.names):,} images, {class_counts(classes.labels, classes.names)}."
    )
    if (none := empty_classes(classes.labels, classes.names)) is not None:
        say(True, f"note: {none}; is the largest label, {classes.labels.max()}, meant?")
    encoder = make_encoder() if make_encoder else None
    images, made_with, remarks = Images(config, source), _made_with(config, source), Remarks()
    key = hashlib.sha256(json.dumps([made_with, source.fingerprint]).encode()).hexdigest()[:8]
    partial = PartialZip(config.out, key)
    try:
        first = _resume(partial)
        bar = progress_bar(config.out.name, images.num_images, first, True)
        with ThreadPoolExecutor(config.threads or default_threads()) as pool, bar:
            for indices, pictures in _chunks(images, first, pool):
                stop.check()
                for name, data in _members(indices, usable(images, indices, pictures, remarks), encoder):
                    partial.write(name, data)
                bar.update(len(indices))
        labels = [[name, images.label(index_of(name))] for name in partial.names]
        if not labels:
            raise ValueError(f"{config.source}: none of {len(source.names)} images can be read")
        said = {"labels": labels, "class_names": classes.names, "prepared": made_with}
        partial.write("dataset.json", json.dumps(said).encode())
    except BaseException:
        partial.pause()
        raise
    partial.finish()
    _say_made(config, images, np.array([label for _, label in labels]), remarks)


def _named(source: Source, names: str | None) -> Classes:
    """The source's classes, called by these names. ValueError for another number of them."""
    classes = source.classes
    if names is None:
        return classes
    given = [name.strip() for name in names.split(",")]
    if len(given) != len(classes.names) or not all(given):
        raise ValueError(
            f"--class-names names {sum(map(bool, given))} classes, and {source.path} has labels 0 to "
            f"{len(classes.names) - 1}: {len(classes.names)} names, with commas between"
        )
    return replace(classes, names=given)


def _say_made(config: PrepareConfig, images: Images, labels: np.ndarray, remarks: Remarks) -> None:
    for line in remarks.lines():
        say(True, line)
    left_out = images.num_images - len(labels)
    example = f" ({remarks.left_out[0]})" if remarks.left_out else ""
    end = f", {left_out:,} damaged left out{example}." if left_out else "."
    say(True, f"{config.out}: {len(labels):,} images{end}")
    if left_out:
        names = _named(images.source, config.class_names).names
        say(True, f"{class_counts(labels, names)}.")
        if (none := empty_classes(labels, names)) is not None:
            say(True, f"note: {none}: none that can be read; the others keep their numbers.")


def _resume(partial: PartialZip) -> int:
    """Forget the members of an unfinished chunk -> the place in the source to go on at."""
    images = [name for name in partial.names if name != "dataset.json"]
    first = (index_of(images[-1]) + 1) // CHUNK * CHUNK if images else 0
    partial.keep(sum(index_of(name) < first for name in images))
    return first


def _chunks(images: Images, first: int, pool: ThreadPoolExecutor) -> Iterator[tuple[range, list]]:
    """Indices and pictures of every chunk, the next one being loaded already."""
    chunks = [range(i, min(i + CHUNK, images.num_images)) for i in range(first, images.num_images, CHUNK)]
    loading = [pool.map(images.picture, chunk) for chunk in chunks[:1]]
    for i, chunk in enumerate(chunks):
        loading += [pool.map(images.picture, following) for following in chunks[i + 1 : i + 2]]
        yield chunk, list(loading.pop(0))


def _members(indices: range, images: list, encoder: Encoder | None) -> Iterator[tuple[str, bytes]]:
    """Names and files, as EDM2 has them, of the images that there are."""
    kept = [(index, image) for index, image in zip(indices, images, strict=True) if image is not None]
    if encoder is None:
        for index, image in kept:
            file = io.BytesIO()
            image.save(file, "PNG", **PNG)
            yield f"{index // 1000:05d}/img{index:08d}.png", file.getvalue()
    elif kept:
        encoded = encoder(np.stack([np.asarray(image).transpose(2, 0, 1) for _, image in kept]))
        kind = "tokens" if encoded.dtype == TOKENS else "mean-std"
        for (index, _), values in zip(kept, encoded, strict=True):
            if not np.isfinite(values).all():
                raise ValueError(f"the latents of image {index:,} are not finite: the VAE cannot encode it")
            file = io.BytesIO()
            np.save(file, values)
            yield f"{index // 1000:05d}/img-{kind}-{index:08d}.npy", file.getvalue()


def index_of(name: str) -> int:
    """The number in a member's name."""
    return int(Path(name).stem[-8:])
