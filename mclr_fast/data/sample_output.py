"""Samples on disk: PNG files, an EDM2 zip or an .npz; written as they are made, in several goes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mclr_fast.runtime.disk import cannot_write
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.lock_file import lock
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks

from .image_files import stored_bytes, write_png
from .partial_zip import PartialZip


class SampleFiles(ABC):
    """The samples of some seeds on disk. All ranks call its methods; a context, which ends a go.

    Args: made_with: what makes the samples, as JSON; what it does not fit is not gone on with.
    """

    def __init__(
        self, path: Path, seeds: Sequence[int], labels: Sequence[int], made_with: dict[str, Any], ranks: Ranks
    ):
        self.path, self.seeds, self.labels = path, seeds, labels
        self.made_with, self.ranks = made_with, ranks

    def __enter__(self) -> SampleFiles:
        return self

    def __exit__(self, *error) -> None:
        """Leave what is there for another go."""
        return

    @abstractmethod
    def begin(self) -> list[int]:
        """Which places of the seeds are still to be sampled, in order. RunError for files not made so."""

    @abstractmethod
    def add(self, places: Sequence[int], images: np.ndarray) -> None:
        """This rank's next images, uint8 [n,C,H,W]; ranks hold them in the order of places."""

    @abstractmethod
    def finish(self) -> None:
        """Every image is there: make it whole."""

    @abstractmethod
    def read(self, count: int) -> np.ndarray:
        """The first images of what is finished, uint8 [n,C,H,W]; rank 0 alone calls it."""

    def on_main(self, function: Callable, *args) -> Any:
        """As `Ranks.on_main`; RunError for a full or read-only disk."""

        def clear() -> Any:
            try:
                return function(*args)
            except OSError as error:
                raise cannot_write(self.path, error) from error

        return self.ranks.on_main(clear)


class PngFiles(SampleFiles):
    """A PNG file a seed; with their classes in dataset.json the folder is an EDM2 data set."""

    def __init__(self, *args, subdirs: bool = False):
        """subdirs: a folder for every 1,000 seeds."""
        super().__init__(*args)
        folder = "{:06d}/".format if subdirs else lambda thousand: ""
        self.names = [f"{folder(seed // 1000 * 1000)}{seed:06d}.png" for seed in self.seeds]

    def begin(self) -> list[int]:
        """As `SampleFiles.begin`: those without a file."""
        return self.on_main(self._begin)

    def add(self, places: Sequence[int], images: np.ndarray) -> None:
        """As `SampleFiles.add`; every rank writes its own."""
        for place, image in zip(places, images, strict=True):
            write_png(self.path / self.names[place], image)

    def finish(self) -> None:
        """As `SampleFiles.finish`."""
        self.ranks.wait()
        self.on_main(self._say_labels, True)

    def read(self, count: int) -> np.ndarray:
        """As `SampleFiles.read`."""
        return np.stack([_pixels(self.path / name) for name in self.names[:count]])

    def _begin(self) -> list[int]:
        there = [(self.path / name).exists() for name in self.names]
        known, made_with = self._known()
        if any(there) and made_with != self.made_with:
            names = ", ".join(different(self.made_with, made_with))
            raise RunError(
                f"{self.path} holds samples that were made otherwise ({names} differ): choose another "
                "--outdir."
            )
        for name, label, is_there in zip(self.names, self.labels, there, strict=True):
            if is_there and known.get(name) != label:
                raise RunError(
                    f"{self.path / name} is of class {known.get(name)}, and {label} is asked for now: "
                    "choose another --outdir."
                )
        self._say_labels(False)
        return [place for place, is_there in enumerate(there) if not is_there]

    def _known(self) -> tuple[dict[str, int], Any]:
        path = self.path / "dataset.json"
        try:
            said = json.loads(path.read_text()) if path.exists() else {"labels": []}
            return dict(said["labels"]), said.get("sampling")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is malformed ({error!r}): choose another --outdir.") from error

    def _say_labels(self, whole: bool) -> None:
        """Write the classes of all seeds so far; whole: of those alone that are there."""
        labels = self._known()[0] | dict(zip(self.names, self.labels, strict=True))
        if whole:
            labels = {name: label for name, label in labels.items() if (self.path / name).exists()}
        said = {"labels": [[name, label] for name, label in sorted(labels.items())]}
        write_json(self.path / "dataset.json", said | {"sampling": self.made_with})


class _Appended(SampleFiles):
    """One zip, which rank 0 appends to; what is unfinished lies beside it. Its comment is its key."""

    is_open = False

    @property
    def key(self) -> str:
        """Of what is to be in the file."""
        facts = json.dumps([list(self.seeds), list(self.labels), self.made_with], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    def begin(self) -> list[int]:
        """As `SampleFiles.begin`: those after what is there."""
        if self.on_main(self.path.exists):
            self.on_main(self._check_made)
            say(self.ranks.is_main, f"{self.path} is there; remove it to make it again.")
            return []
        self.is_open = True
        return list(range(self.on_main(self._open), len(self.seeds)))

    def add(self, places: Sequence[int], images: np.ndarray) -> None:
        """As `SampleFiles.add`; rank 0 holds a batch of every rank."""
        self.on_main(self._append, self.ranks.gather_on_main(images))

    def finish(self) -> None:
        """As `SampleFiles.finish`."""
        if self.is_open:
            self.on_main(self._finish)
            self.is_open = False

    def __exit__(self, *error) -> None:
        if self.is_open and self.ranks.is_main:
            self._pause()

    def _check_made(self) -> None:
        """RunError unless what is there is what would be made."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.comment == self.key.encode():
                    return
                labels, made_with = self._said(archive)
                known = not archive.comment  # an older file, which says less
        except (ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{self.path} is there, and is none of ours ({error}): choose another --outdir."
            ) from error
        found = [] if made_with == self.made_with else different(self.made_with, made_with)
        if len(labels) != len(self.seeds):
            found.append(f"{len(labels):,} images, not {len(self.seeds):,}")
        elif labels != list(self.labels):
            found.append("other seeds or classes")
        if found or not known:
            how = ", ".join(found) or "other seeds or options"
            raise RunError(
                f"{self.path} is there, and was made otherwise ({how}): remove it to make it again, or "
                "choose another --outdir."
            )

    @abstractmethod
    def _said(self, archive: zipfile.ZipFile) -> tuple[list[int], Any]:
        """The classes of all images, and what made them, as far as it is said."""

    @abstractmethod
    def _open(self) -> int:
        """How many images there are."""

    @abstractmethod
    def _append(self, batches: list[np.ndarray]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _pause(self) -> None: ...


class SampleZip(_Appended):
    """An EDM2 data set."""

    _partial: PartialZip | None = None

    def read(self, count: int) -> np.ndarray:
        """As `SampleFiles.read`."""
        with zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".png")][:count]
            return np.stack([_pixels(io.BytesIO(archive.read(name))) for name in names])

    def _said(self, archive: zipfile.ZipFile) -> tuple[list[int], Any]:
        said = json.loads(archive.read("dataset.json"))
        return [label for _, label in said["labels"]], said.get("sampling")

    def _open(self) -> int:
        try:
            self._partial = PartialZip(self.path, self.key)
        except ValueError as error:
            raise RunError(f"{error}.") from error
        self._partial.keep(sum(name.endswith(".png") for name in self._partial.names))
        return len(self._partial.names)

    def _append(self, batches: list[np.ndarray]) -> None:
        for image in (image for images in batches for image in images):
            number = len(self._partial.names)
            self._partial.write(f"{number // 1000:05d}/img{number:08d}.png", stored_bytes(image))

    def _finish(self) -> None:
        pairs = [[name, int(label)] for name, label in zip(self._partial.names, self.labels, strict=True)]
        said = {"labels": pairs, "sampling": self.made_with}
        self._partial.write("dataset.json", json.dumps(said).encode())
        self._partial.finish(self.key.encode())

    def _pause(self) -> None:
        if self._partial is not None:
            self._partial.pause()


class SampleArray(_Appended):
    """What ADM's evaluator takes: arr_0, uint8 [n,H,W,C]; arr_1 are the classes, int64 [n]."""

    _file: Any = None

    def read(self, count: int) -> np.ndarray:
        """As `SampleFiles.read`."""
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            shape = _read_header(file)
            count = min(count, shape[0])
            pixels = np.frombuffer(file.read(count * int(np.prod(shape[1:]))), np.uint8)
        return pixels.reshape(count, *shape[1:]).transpose(0, 3, 1, 2)

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.key}.partial")

    def _said(self, archive: zipfile.ZipFile) -> tuple[list[int], Any]:
        return np.load(io.BytesIO(archive.read("arr_1.npy"))).tolist(), self.made_with

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial.touch()
        self._file = open(self._partial, "r+b")  # noqa: SIM115
        if not lock(self._file, self.path):
            raise RunError(f"another process is writing {self.path}; wait for it, or stop it.")
        try:
            shape = _read_header(self._file)
        except ValueError:  # no image yet
            self._file.truncate(0)
            self._file.seek(0)
            return 0
        start, size = self._file.tell(), int(np.prod(shape[1:]))
        count = min((os.path.getsize(self._partial) - start) // size, shape[0])
        self._file.truncate(start + count * size)
        self._file.seek(0, os.SEEK_END)
        return count

    def _append(self, batches: list[np.ndarray]) -> None:
        for images in batches:
            rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
            if self._file.tell() == 0:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.seeds), *rows.shape[1:])}
                np.lib.format.write_array_header_1_0(self._file, header)
            self._file.write(rows.tobytes())
        self._file.flush()

    def _finish(self) -> None:
        whole = self._partial.with_suffix(".whole")
        try:
            with zipfile.ZipFile(whole, "w") as archive:
                info = zipfile.ZipInfo("arr_0.npy")  # with a fixed date: the same samples are the same bytes
                info.file_size = os.path.getsize(self._partial)
                with open(self._partial, "rb") as rows, archive.open(info, "w") as member:
                    shutil.copyfileobj(rows, member, 1 << 22)
                archive.writestr(zipfile.ZipInfo("arr_1.npy"), stored_bytes(np.array(self.labels, np.int64)))
                archive.comment = self.key.encode()
            os.replace(whole, self.path)
        finally:
            whole.unlink(missing_ok=True)
        self._partial.unlink()
        self._pause()

    def _pause(self) -> None:
        with contextlib.suppress(AttributeError):
            self._file.close()


def different(wanted: dict[str, Any], found: dict[str, Any] | None) -> list[str]:
    """The names of what is wanted otherwise, or no longer."""
    found = found or {}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def _pixels(file: Path | io.BytesIO) -> np.ndarray:
    """uint8 [C,H,W]."""
    with Image.open(file) as image:
        return np.atleast_3d(image).transpose(2, 0, 1)


def _read_header(file: Any) -> tuple[int, ...]:
    """The shape that an .npy file has."""
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)[0]
