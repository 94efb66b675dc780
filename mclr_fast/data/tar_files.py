"""The files of a tar archive by name; of ImageNet's too, which is a tar of a tar for every class."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath


class TarFiles:
    """Members of an uncompressed tar. Those of a class.tar in it are class/<name>. See `files.Files`."""

    def __init__(self, path: Path):
        """ValueError for what is no tar, or is compressed: that cannot be read in any other order."""
        self.path = path
        try:
            with tarfile.open(path, "r:") as archive:
                self._places = dict(_members(archive, 0, ""))
        except tarfile.TarError as error:
            raise ValueError(
                f"{path} is not an uncompressed tar archive, or was cut short ({error}); unpack it, or its "
                "compression, first"
            ) from error
        self.names = list(self._places)
        self.folders = {name.split("/", 1)[0] for name in self.names if "/" in name}
        self._file = os.open(path, os.O_RDONLY)

    def view(self, name: str) -> bytes:
        """A member's bytes."""
        offset, size = self._places[name]
        data = os.pread(self._file, size, offset)
        if len(data) < size:
            raise ValueError("the archive ends there")
        return data

    read = view

    def expect(self, names: Iterable[str]) -> None:
        """Members are read when they are read."""


def _members(archive: tarfile.TarFile, offset: int, folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every file's name, and its place and size in the outermost archive."""
    for member in archive:
        path = PurePosixPath(folder, member.name)
        if not member.isfile():
            continue
        if path.suffix == ".tar":
            with tarfile.open(fileobj=archive.extractfile(member), mode="r:") as inner:
                yield from _members(inner, offset + member.offset_data, str(path.with_suffix("")))
        else:
            yield str(path), (offset + member.offset_data, member.size)
