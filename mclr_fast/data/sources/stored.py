"""Where the bytes of one file of a data set lie, and how they are read."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, lengths of name and extra field
USUAL_EXTRA = 64  # bytes of an extra field that are read along with the header
SMALL = 1 << 15  # bytes of a member up to which header and contents are read at once, and copied apart
PIECE = 1 << 20  # bytes unpacked at once
BEGINNING = 64  # bytes that tell what a file is


class Stored(Protocol):
    """The bytes of a file. ValueError or OSError, wherever they cannot be had."""

    @property
    def checksum(self) -> int | None:
        """Their CRC-32, where it is kept beside them."""
        ...

    def view(self) -> bytes:
        """The bytes; a checksum is not looked at."""
        ...

    def read(self) -> bytes:
        """The bytes, as their checksum, if they have one, says they are."""
        ...

    def beginning(self) -> bytes:
        """The first bytes, enough to tell what it is."""
        ...

    def expect(self) -> None:
        """These are read next: the disk may begin."""
        ...

    def stamp(self) -> str:
        """What changes when the bytes do, found without reading them."""
        ...

    def measure(self) -> tuple[int, int]:
        """Its size in bytes, and when it was written last, in ns; 0 where a checksum tells more."""
        ...


class DiskFile:
    """A file that pieces are read of.

    Read and not mapped: of a mapped file that is cut short while it is in use, a process dies.
    """

    def __init__(self, path: Path, keep_open: bool = True, file: BinaryIO | None = None):
        """file: as it was opened. keep_open: else it is opened for every read, as a thousand tars must be."""
        self.path = path
        self._file = open(path, "rb", buffering=0) if keep_open and file is None else file  # noqa: SIM115

    def stat(self) -> os.stat_result:
        """As os.stat, of now."""
        return os.stat(self.path if self._file is None else self._file.fileno())

    def pread(self, size: int, offset: int) -> bytes:
        """As os.pread."""
        if self._file is not None:
            return os.pread(self._file.fileno(), size, offset)
        with open(self.path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, offset)

    def expect(self, size: int, offset: int) -> None:
        """Have the system read this ahead."""
        if self._file is not None and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)


class Window(io.RawIOBase):
    """A stretch of a file, as a file of its own: an archive in an archive."""

    def __init__(self, file: DiskFile, offset: int = 0, size: int | None = None):
        super().__init__()
        self.file, self.offset = file, offset
        self.size = file.stat().st_size - offset if size is None else size
        self._at = 0

    def readable(self) -> bool:
        """As io.RawIOBase."""
        return True

    def seekable(self) -> bool:
        """As io.RawIOBase."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As io.RawIOBase."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError("a seek to before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """As io.RawIOBase."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """As io.RawIOBase."""
        left = max(self.size - self._at, 0)
        size = left if size is None or size < 0 else min(size, left)
        data = self.file.pread(size, self.offset + self._at) if size else b""
        self._at += len(data)
        return data

    def readinto(self, buffer) -> int:
        """As io.RawIOBase."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class OnDisk:
    """A file in a folder."""

    __slots__ = ("relative", "root")
    checksum = None

    def __init__(self, root: Path, relative: str):
        self.root, self.relative = root, relative

    def view(self) -> bytes:
        """As `Stored.view`."""
        return (self.root / self.relative).read_bytes()

    read = view

    def beginning(self) -> bytes:
        """As `Stored.beginning`."""
        with open(self.root / self.relative, "rb", buffering=0) as file:
            return file.read(BEGINNING)

    def expect(self) -> None:
        """Folders are read when they are read."""

    def stamp(self) -> str:
        """Size and time."""
        return "{} {}".format(*self.measure())

    def measure(self) -> tuple[int, int]:
        """As `Stored.measure`."""
        # Not by Path's operator, which takes longer than the system does: there may be millions.
        stat = os.stat(f"{self.root}{os.sep}{self.relative}")
        return stat.st_size, stat.st_mtime_ns


class Piece:
    """A tar's member: bytes as they are."""

    __slots__ = ("file", "offset", "size")
    checksum = None

    def __init__(self, file: DiskFile, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size

    def view(self) -> bytes:
        """As `Stored.view`."""
        data = self.file.pread(self.size, self.offset)
        if len(data) < self.size:
            raise ValueError("the archive ends there")
        return data

    read = view

    def beginning(self) -> bytes:
        """As `Stored.beginning`."""
        return self.file.pread(min(self.size, BEGINNING), self.offset)

    def expect(self) -> None:
        """As `Stored.expect`."""
        self.file.expect(self.size, self.offset)

    def stamp(self) -> str:
        """Place and size in an archive of that time."""
        return "{} {} {}".format(self.offset, *self.measure())

    def measure(self) -> tuple[int, int]:
        """Its size, and the archive's time."""
        return self.size, self.file.stat().st_mtime_ns


class ZipPiece:
    """A zip's member that is stored as it is, behind a header of its own."""

    __slots__ = ("checksum", "file", "name_size", "offset", "size")

    def __init__(self, file: DiskFile, offset: int, info: zipfile.ZipInfo):
        """offset: of the archive in the file."""
        self.file, self.offset = file, offset + info.header_offset
        self.size, self.checksum = info.file_size, info.CRC
        self.name_size = len(info.filename)

    def view(self) -> bytes:
        """As `Stored.view`."""
        size = LOCAL_HEADER.size + (self.name_size + USUAL_EXTRA + self.size if self.size < SMALL else 0)
        data = self.file.pread(size, self.offset)
        start = self._start(data)
        if start + self.size > len(data):
            data, start = self.file.pread(self.size, self.offset + start), 0
        if start + self.size > len(data):
            raise ValueError("the archive is damaged there, or was cut short")
        return data[start : start + self.size] if start else data

    def read(self) -> bytes:
        """As `Stored.read`."""
        data = self.view()
        if zlib.crc32(data) != self.checksum:
            raise ValueError("its checksum is wrong: the archive is damaged there")
        return data

    def beginning(self) -> bytes:
        """As `Stored.beginning`."""
        return self.window().read(BEGINNING)

    def expect(self) -> None:
        """As `Stored.expect`."""
        self.file.expect(LOCAL_HEADER.size + self.name_size + USUAL_EXTRA + self.size, self.offset)

    def stamp(self) -> str:
        """The checksum."""
        return str(self.checksum)

    def measure(self) -> tuple[int, int]:
        """As `Stored.measure`."""
        return self.size, 0

    def window(self) -> Window:
        """The member as a file."""
        start = self._start(self.file.pread(LOCAL_HEADER.size, self.offset))
        return Window(self.file, self.offset + start, self.size)

    @staticmethod
    def _start(data: bytes) -> int:
        if len(data) < LOCAL_HEADER.size or data[:4] != b"PK\3\4":
            raise ValueError("the archive is damaged there, or was cut short")
        _, len_name, len_extra = LOCAL_HEADER.unpack_from(data)
        return LOCAL_HEADER.size + len_name + len_extra


class Packed:
    """A zip's member that is compressed."""

    __slots__ = ("archive", "checksum", "info")

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo):
        self.archive, self.info = archive, info
        self.checksum = info.CRC

    def view(self) -> bytes:
        """As `Stored.view`; the checksum is looked at all the same."""
        return self.archive.read(self.info)

    read = view

    def beginning(self) -> bytes:
        """As `Stored.beginning`."""
        with self.archive.open(self.info) as file:
            return file.read(BEGINNING)

    def expect(self) -> None:
        """It is read when it is unpacked."""

    def stamp(self) -> str:
        """The checksum."""
        return str(self.info.CRC)

    def measure(self) -> tuple[int, int]:
        """As `Stored.measure`."""
        return self.info.file_size, 0


class Unreadable:
    """What is named and cannot be had: a link to nothing."""

    __slots__ = ("reason",)
    checksum = None

    def __init__(self, reason: str):
        self.reason = reason

    def view(self) -> bytes:
        """ValueError."""
        raise ValueError(self.reason)

    read = beginning = view

    def expect(self) -> None:
        """Nothing comes."""

    def stamp(self) -> str:
        """Nothing to change."""
        return "-"

    def measure(self) -> tuple[int, int]:
        """Nothing to measure."""
        return 0, 0


class Scratch:
    """Room on disk for what lies compressed in an archive: a file without a name, gone with the process."""

    def __init__(self, folder: Path | None = None):
        """folder: where it lies; None: where the system puts such files."""
        self.folder = folder
        self._file: BinaryIO | None = None

    def unpack(self, stream: BinaryIO) -> Window:
        """Write it out -> what was written."""
        if self._file is None:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        start = self._file.seek(0, os.SEEK_END)
        while data := stream.read(PIECE):
            self._file.write(data)
        self._file.flush()
        file = DiskFile(self.folder or Path(tempfile.gettempdir()), file=self._file)
        return Window(file, start, self._file.tell() - start)
