"""The files of a data set by name, in a folder or in a memory-mapped zip archive."""

from __future__ import annotations

import difflib
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, lengths of name and extra field


class Files(Protocol):
    """Attributes: names, of all files; folders, the top-level folders, also empty ones."""

    names: list[str]
    folders: set[str]

    def view(self, name: str) -> memoryview | bytes:
        """A file's bytes; its checksum is not looked at."""
        ...

    def read(self, name: str) -> memoryview | bytes:
        """A file's bytes. ValueError if they are not what was stored."""
        ...

    def expect(self, names: Iterable[str]) -> None:
        """These are read next: the disk may begin."""
        ...


def open_files(path: Path) -> Files:
    """The files of a folder or zip archive. FileNotFoundError or ValueError when it is neither."""
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = ", ".join(difflib.get_close_matches(path.name, siblings))
        raise FileNotFoundError(f"no dataset at {path}" + (f"; near it: {near}" if near else ""))
    try:
        return ZipFiles(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is not a zip archive, or was cut short ({error}); expected an EDM2 dataset, a .zip or "
            "a folder"
        ) from error


class FolderFiles:
    """Files of a folder and the folders in it."""

    def __init__(self, path: Path):
        self.path = path
        files = [Path(root, file) for root, _, files in os.walk(path) for file in files]
        self.names = [file.relative_to(path).as_posix() for file in files]
        self.folders = {entry.name for entry in os.scandir(path) if entry.is_dir()}

    def view(self, name: str) -> bytes:
        """A file's bytes."""
        return (self.path / name).read_bytes()

    read = view

    def expect(self, names: Iterable[str]) -> None:
        """Folders are read when they are read."""


class ZipFiles:
    """Members of a zip archive. Those stored as they are, as EDM2's are, are views of the mapped file."""

    def __init__(self, path: Path):
        self.path = path
        self._archive = zipfile.ZipFile(path)
        members = self._archive.namelist()
        self.names = [name for name in members if not name.endswith("/")]
        self.folders = {name.split("/", 1)[0] for name in members if "/" in name}
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = memoryview(self._map)

    def view(self, name: str) -> memoryview | bytes:
        """A member's bytes, not copied where they are stored as they are."""
        member = self._archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            return self._archive.read(name)
        signature, len_name, len_extra = LOCAL_HEADER.unpack_from(self._map, member.header_offset)
        start = member.header_offset + 30 + len_name + len_extra
        if signature != b"PK\3\4" or start + member.file_size > len(self._map):
            raise ValueError("the archive is damaged there")
        return self._bytes[start : start + member.file_size]

    def read(self, name: str) -> memoryview | bytes:
        """A member's bytes, as its checksum says they are."""
        data = self.view(name)
        if zlib.crc32(data) != self._archive.getinfo(name).CRC:
            raise ValueError("its checksum is wrong: the archive is damaged there")
        return data

    def expect(self, names: Iterable[str]) -> None:
        """Have the system read these members ahead, all at once."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for name in names:
            member = self._archive.getinfo(name)
            first = member.header_offset // mmap.PAGESIZE * mmap.PAGESIZE
            size = min(member.header_offset + 1024 + member.compress_size, len(self._map)) - first
            self._map.madvise(mmap.MADV_WILLNEED, first, size)
