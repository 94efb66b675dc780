"""A zip archive that is written in several goes, and is there only when it is whole."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mclr_fast.runtime.disk import cannot_write, sync
from mclr_fast.runtime.lock_file import lock

LOCAL_HEADER = struct.Struct("<4s10xIIIHH")  # signature, checksum, stored size, size, lengths


class PartialZip:
    """Members are stored as they are, in the order they come, with a fixed date: same members, same bytes.

    They lie beside `path` under a name made of `key`. Whoever opens that again finds the whole members
    that are there, every checksum looked at, and goes on after them.

    Errors    ValueError when another process has it open.
    """

    def __init__(self, path: Path, key: str):
        self.path = path
        self.partial = path.with_name(f".{path.name}.{key}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.partial.touch()
        self._file = open(self.partial, "r+b")  # noqa: SIM115
        if not lock(self._file, path):
            self._file.close()
            raise ValueError(f"another process is writing {path}; wait for it, or stop it")
        self._archive = zipfile.ZipFile(self._file, "w")
        self._set(_whole_members(self._file))

    @property
    def names(self) -> list[str]:
        """Of the members so far."""
        return self._archive.namelist()

    def keep(self, num_members: int) -> None:
        """Forget all members but the first ones."""
        self._set(self._archive.infolist()[:num_members])

    def write(self, name: str, data: bytes) -> None:
        """Append a member. RunError where the disk does not take it."""
        with self._on_disk():
            self._archive.writestr(zipfile.ZipInfo(name), data)

    def pause(self) -> None:
        """Leave what is there for another go."""
        self._archive.fp = None  # else it would end the archive
        self._file.close()

    def finish(self, comment: bytes = b"") -> None:
        """End the archive and move it to its path. RunError where the disk does not take it."""
        with self._on_disk():
            self._archive.comment = comment
            self._archive.close()
            self._file.flush()
            sync(self._file)
            self._file.close()
            os.replace(self.partial, self.path)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _set(self, members: list[zipfile.ZipInfo]) -> None:
        end = members[-1].header_offset + _length(members[-1]) if members else 0
        self._archive.filelist[:] = members
        self._archive.NameToInfo.clear()
        self._archive.NameToInfo.update({member.filename: member for member in members})
        self._archive.start_dir = end
        self._file.truncate(end)
        self._file.seek(end)


def _whole_members(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """Members from the file's start on, up to the first that is not whole."""
    members, offset = [], 0
    while True:
        file.seek(offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            return members
        signature, checksum, _, size, len_name, len_extra = LOCAL_HEADER.unpack(header)
        name = file.read(len_name + len_extra)[:len_name]
        data = file.read(size)
        if signature != b"PK\3\4" or len(data) < size or zlib.crc32(data) != checksum:
            return members
        member = zipfile.ZipInfo(name.decode())
        member.external_attr = 0o600 << 16  # as writestr sets it
        member.header_offset, member.CRC, member.file_size, member.compress_size = (
            offset,
            checksum,
            size,
            size,
        )
        offset += _length(member)
        members.append(member)


def _length(member: zipfile.ZipInfo) -> int:
    """Bytes of a member with its header; ours have no extra field."""
    return LOCAL_HEADER.size + len(member.filename.encode()) + member.file_size
