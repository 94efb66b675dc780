"""Images written to disk: as a data set in one zip, or a PNG each."""

from __future__ import annotations

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mclr_fast.runtime.disk import cannot_write
from mclr_fast.runtime.files import replacing


class ZipWriter:
    """Writes a data set in one zip, batch by batch; it is at `path` once it is finished, and not before.

    A context: what was not finished is removed. Errors: RunError when the disk is full or read-only.
    """

    def __init__(self, path: Path):
        """path: touched by the first batch."""
        self.path = path
        self._names: list[str] = []
        self._files = contextlib.ExitStack()
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error) -> None:
        assert kind is not None or self._archive is None, "finish() was not called"
        self._files.__exit__(kind, *error)

    def add(self, *batches: np.ndarray) -> None:
        """Batches of uint8 [n,C,H,W], as PNG, or of float32 [n,8,h,w], as .npy."""
        with self._clear_errors():
            archive = self._open()
            for images in batches:
                suffix = ".png" if images.dtype == np.uint8 else ".npy"
                for image in images:
                    number = len(self._names)
                    self._names.append(f"{number // 1000:05d}/img{number:08d}{suffix}")
                    archive.writestr(zipfile.ZipInfo(self._names[-1]), stored_bytes(image))

    def finish(self, labels: Sequence[int] | np.ndarray) -> None:
        """Write every image's class, and put the data set in its place."""
        pairs = [[name, int(label)] for name, label in zip(self._names, labels, strict=True)]
        with self._clear_errors():
            self._open().writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": pairs}))
            self._archive = None
            self._files.close()

    def _open(self) -> zipfile.ZipFile:
        # A ZipInfo has a fixed date: the same samples are the same bytes.
        if self._archive is None:
            temporary = self._files.enter_context(replacing(self.path))
            self._archive = self._files.enter_context(zipfile.ZipFile(temporary, "w"))
        return self._archive

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """The error of `replacing`, raised where it is seen."""
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error


def stored_bytes(image: np.ndarray) -> bytes:
    """uint8 [C,H,W] as a PNG file, anything else as .npy."""
    file = io.BytesIO()
    if image.dtype == np.uint8:
        pixels = image.transpose(1, 2, 0)
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    else:
        np.save(file, image)
    return file.getvalue()


def write_png(path: Path, image: np.ndarray) -> None:
    """uint8 [C,H,W] -> PNG, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(stored_bytes(image))


def write_sheet(path: Path, images: np.ndarray) -> None:
    """uint8 [n,C,H,W] -> one PNG that shows them in rows, about as many as there are columns, atomically."""
    columns = math.isqrt(len(images) - 1) + 1
    blank = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    cells = np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])
    rows, _, channels, height, width = cells.shape
    sheet = cells.transpose(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)
    write_png(path, sheet)
