"""Labelled images, as they come, to an EDM2 data set: cropped, perhaps encoded, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from mclr_fast.config import PrepareConfig
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.logs import progress_bar, say
from mclr_fast.runtime.options import Check
from mclr_fast.runtime.signals import StopRequest

from .crop import center_crop_dhariwal
from .files import Files, open_files
from .labels import read_labels
from .loaders import default_threads
from .on_disk import EDM2Dataset, image_names
from .partial_zip import PartialZip
from .tar_files import TarFiles

Encoder = Callable[[np.ndarray], np.ndarray]
"""uint8 images [n,3,H,W] -> what is stored of them, float32 [n,...]."""
PNG = {"compress_level": 0}  # as EDM2's: faster to read, 1.5 times as large
CHUNK = 128  # images between looks at signals; what another go begins anew


def prepare(config: PrepareConfig, make_encoder: Callable[[], Encoder] | None, stop: StopRequest) -> None:
    """Make config.out of config.source, or go on making it; verify it, or the source, where asked.

    make_encoder: makes what turns pixels into what is stored, called once the source is read; None: pixels.

    Errors    RunError, one line: a source or an image that cannot be used; Interrupted after a signal.
    """
    Check(config).at_least(1, "resolution")
    Check(config).at_least(0, "threads")
    try:
        if config.out is not None and config.out.exists():
            say(True, f"{config.out} is there; remove it to make it again.")
        elif config.out is not None:
            _make(config, make_encoder, stop)
        if config.verify:
            verify(config.out or config.source, config.threads or default_threads(), stop)
    except (ValueError, OSError) as error:
        raise RunError(f"{str(error).rstrip('.')}.") from error


def verify(path: Path, num_threads: int, stop: StopRequest) -> None:
    """Read and decode everything, and say what is there. RunError if any of it cannot be used."""
    dataset = EDM2Dataset(path)
    labels = dataset.labels
    problems = []

    def problem(index: int) -> str | None:
        try:
            dataset.image(index)
        except ValueError as error:
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
    say(
        True,
        f"{path}: {len(dataset):,} images of {shape}, {np.count_nonzero(counts):,} of {len(counts):,} "
        f"classes, {counts[counts > 0].min():,} to {counts.max():,} images a class; every one can be read.",
    )


class Source:
    """The images that a data set is made of, in the order of their names; mirrored, all of them once more."""

    def __init__(self, config: PrepareConfig):
        self.path = config.source
        self.resolution = config.resolution
        self.skip_damaged = config.skip_damaged
        is_tar = self.path.is_file() and ".tar" in self.path.suffixes
        self.files: Files = TarFiles(self.path) if is_tar else open_files(self.path)
        self.names = image_names(self.files.names)
        if not self.names:
            raise ValueError(f"{self.path} holds no images")
        self.labels = read_labels(self.path, self.files, self.names)
        self.num_images = len(self.names) * (2 if config.mirror else 1)
        facts = [config.resolution, config.latents, config.mirror, self.names]
        self.key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]

    def label(self, index: int) -> int:
        """The class of the image at this place."""
        return int(self.labels[index % len(self.names)])

    def image(self, index: int) -> PIL.Image.Image | None:
        """RGB, cropped; None for a damaged one that is to be left out."""
        name = self.names[index % len(self.names)]
        try:
            with PIL.Image.open(io.BytesIO(self.files.read(name))) as opened:
                image = center_crop_dhariwal(opened.convert("RGB"), self.resolution)
        except Exception as error:  # whatever a damaged file makes a decoder raise
            if self.skip_damaged:
                return None
            raise ValueError(
                f"{self.path}: {name!r} cannot be read ({error!r}): mend it, or leave such images out with "
                "--skip-damaged"
            ) from error
        mirrored = index >= len(self.names)
        return image.transpose(Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def _make(config: PrepareConfig, make_encoder: Callable[[], Encoder] | None, stop: StopRequest) -> None:
    if config.out.suffix != ".zip":
        raise ValueError(f"the data set to write, {config.out}, must end in .zip")
    source = Source(config)
    encoder = make_encoder() if make_encoder else None
    partial = PartialZip(config.out, source.key)
    try:
        first = _resume(partial)
        bar = progress_bar(config.out.name, source.num_images, first, True)
        with ThreadPoolExecutor(config.threads or default_threads()) as pool, bar:
            for indices, images in _chunks(source, first, pool):
                stop.check()
                for name, data in _members(indices, images, encoder):
                    partial.write(name, data)
                bar.update(len(indices))
        labels = [[name, source.label(index_of(name))] for name in partial.names]
        if not labels:
            raise ValueError(f"{config.source}: none of {len(source.names)} images can be read")
        partial.write("dataset.json", json.dumps({"labels": labels}).encode())
    except BaseException:
        partial.pause()
        raise
    partial.finish()
    left_out = source.num_images - len(labels)
    say(
        True,
        f"{config.out}: {len(labels):,} images" + (f", {left_out:,} damaged left out." if left_out else "."),
    )


def _resume(partial: PartialZip) -> int:
    """Forget the members of an unfinished chunk -> the place in the source to go on at."""
    images = [name for name in partial.names if name != "dataset.json"]
    first = (index_of(images[-1]) + 1) // CHUNK * CHUNK if images else 0
    partial.keep(sum(index_of(name) < first for name in images))
    return first


def _chunks(source: Source, first: int, pool: ThreadPoolExecutor) -> Iterator[tuple[range, list]]:
    """Indices and images of every chunk, the next one being loaded already."""
    chunks = [range(i, min(i + CHUNK, source.num_images)) for i in range(first, source.num_images, CHUNK)]
    loading = [pool.map(source.image, chunk) for chunk in chunks[:1]]
    for i, chunk in enumerate(chunks):
        loading += [pool.map(source.image, following) for following in chunks[i + 1 : i + 2]]
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
        latents = encoder(np.stack([np.asarray(image).transpose(2, 0, 1) for _, image in kept]))
        for (index, _), latent in zip(kept, latents, strict=True):
            file = io.BytesIO()
            np.save(file, latent)
            yield f"{index // 1000:05d}/img-mean-std-{index:08d}.npy", file.getvalue()


def index_of(name: str) -> int:
    """The number in a member's name."""
    return int(Path(name).stem[-8:])
