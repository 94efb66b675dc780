"""What lies in a tar or a zip, compressed or not, as a tree."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath

from .names import kind_of
from .stored import BEGINNING, Packed, Piece, Scratch, Unreadable, Window, ZipPiece
from .tree import Tree

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # by their first bytes
UTF8_NAME = 0x800  # a zip member's flag
ENCRYPTED = 1
MOST_AFTER = 1 << 20  # bytes behind a tar's end that are looked at


def archive_tree(window: Window, path: str, scratch: Scratch | None) -> Tree:
    """A tar or zip by its contents, whatever it is called.

    path: as messages have it. scratch: where what is compressed as a whole is unpacked; None: it is refused.
    Errors    ValueError, one line, for what is neither, and says what it is instead.
    """
    beginning = window.read(512)
    window.seek(0)
    kind = kind_of(beginning)
    if kind is None or not kind.startswith(("empty", "nothing")):
        with contextlib.suppress(tarfile.TarError):  # first: a tar may begin with any name, also with "PK"
            return _tar_tree(window, path)
    window.seek(0)
    if beginning.startswith(tuple(COMPRESSED)):
        return _tar_tree(_unpacked_tar(window, path, scratch), path)
    if beginning.startswith(b"PK") or (kind is None and zipfile.is_zipfile(window)):  # or behind a program
        return _zip_tree(window, path)
    found = "it was cut short, or is another thing" if kind is None else f"it is {kind}"
    raise ValueError(
        f"{path} is not a zip archive, nor a tar: {found}; expected an EDM2 dataset, a .zip, a .tar or a "
        "folder"
    )


def _zip_tree(window: Window, path: str) -> Tree:
    tree = Tree()
    try:
        archive = zipfile.ZipFile(window)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"{path} is not a zip archive, or was cut short ({error}); expected an EDM2 dataset, a .zip or "
            "a folder"
        ) from error
    for info in archive.infolist():
        name = _zip_name(info)
        if name.endswith(("/", "\\")):
            tree.add_folder(name)
        elif stat.S_ISLNK(info.external_attr >> 16):
            target = archive.read(info).decode(errors="surrogateescape")
            tree.add_link(name, posixpath.join(posixpath.dirname(name), target))
        elif info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ENCRYPTED:
            tree.add(name, ZipPiece(window.file, window.offset, info))
        else:
            tree.add(name, Packed(archive, info))
    tree.follow_links()
    return tree


def _zip_name(info: zipfile.ZipInfo) -> str:
    """As it was meant: UTF-8 also where, as macOS leaves it, the flag that says so is missing."""
    if info.flag_bits & UTF8_NAME or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _tar_tree(window: Window, path: str) -> Tree:
    """tarfile.TarError for what is none; ValueError for one that ends in the middle."""
    tree = Tree(later_wins=True)
    with tarfile.open(fileobj=window, mode="r:") as archive:
        try:
            for member in archive:
                _add_member(tree, member, window)
        except tarfile.TarError as error:
            raise ValueError(f"{path} was cut short, or is damaged ({error})") from error
        _check_end(tree, archive, window, path)
    tree.follow_links()
    return tree


def _add_member(tree: Tree, member: tarfile.TarInfo, window: Window) -> None:
    if member.issparse():
        tree.add(member.name, Unreadable("it is stored as a sparse file"))
    elif member.isfile():
        tree.add(member.name, Piece(window.file, window.offset + member.offset_data, member.size))
    elif member.isdir():
        tree.add_folder(member.name)
    elif member.islnk():  # from the archive's root
        tree.add_link(member.name, member.linkname)
    elif member.issym():
        tree.add_link(member.name, posixpath.join(posixpath.dirname(member.name), member.linkname))
    else:
        tree.special.append(PurePosixPath(member.name).as_posix())


def _check_end(tree: Tree, archive: tarfile.TarFile, window: Window, path: str) -> None:
    """ValueError where more follows than could be read; a note where the end mark is missing."""
    window.seek(archive.offset)
    after = window.read(MOST_AFTER)
    if after.strip(b"\0"):
        raise ValueError(
            f"{path}: after {len(archive.getmembers()):,} members comes what is none: the tar is damaged "
            "there, or several were joined (tar --ignore-zeros unpacks those)"
        )
    if not after:
        tree.notes.append(f"{path} ends without a tar's end mark: perhaps it was cut short")


def unpacked(window: Window, path: str, scratch: Scratch | None) -> Window:
    """What is compressed in a file, or the file itself where nothing is.

    scratch: where it is unpacked; None: it is refused. ValueError, one line.
    """
    window.seek(0)
    beginning = window.read(BEGINNING)
    window.seek(0)
    opener = next((opener for start, opener in COMPRESSED.items() if beginning.startswith(start)), None)
    if opener is None:
        return window
    if scratch is None:
        raise ValueError(
            f"{path} is compressed as a whole, so it cannot be read in any order: python -m "
            "mclr_fast.prepare makes a data set of it"
        )
    try:
        with opener(window) as stream:
            return scratch.unpack(stream)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's
            raise
        raise ValueError(f"{path} was cut short, or is damaged ({error})") from error


def _unpacked_tar(window: Window, path: str, scratch: Scratch | None) -> Window:
    inner = unpacked(window, path, scratch)
    try:
        tarfile.open(fileobj=inner, mode="r:").close()
    except tarfile.TarError:
        kind = kind_of(inner.read(512)) or "no archive"
        raise ValueError(f"{path}: compressed in it is {kind}; expected a tar") from None
    inner.seek(0)
    return inner
