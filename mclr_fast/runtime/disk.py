"""What a disk need not be able to do, and what is said of one that fails at what it must.

Object stores and network drives refuse niceties: to sync a folder, to set permissions, to map or to lock a
file, to say how much room there is. These are gone on without. What a run cannot do without is named, with
its cause and the mend of that cause.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import RunError

CANNOT = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENODEV,
    errno.ENOLCK,
}
"""How a disk says that it has no such operation."""
NOT_MINE = {errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR, errno.EROFS}
"""How it says, moreover, that a folder cannot be opened as a file, or that a file's owner is another."""
NETWORK = (
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ECONNREFUSED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
)
FOLDER = "choose another folder"
MENDS = {
    errno.ENOSPC: f"Free some space or {FOLDER}",
    errno.EDQUOT: f"Your quota there is used up: free some space or {FOLDER}",
    errno.EROFS: f"It can only be read there: {FOLDER}",
    errno.EACCES: f"Look at the permissions there, or {FOLDER}",
    errno.EPERM: f"Look at the permissions there, or {FOLDER}",
    errno.EIO: f"The disk itself fails: look at it, or {FOLDER}",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EFBIG: f"No file may be so large there (a disk's limit, or ulimit -f): raise it or {FOLDER}",
    errno.EMFILE: "Raise the number of files that a process may have open (ulimit -n)",
    errno.ENFILE: "The machine has too many files open: close some",
    errno.ENOENT: "Look whether the folder is still there",
    errno.ENOTDIR: f"A file is where a folder should be: remove it or {FOLDER}",
    errno.EISDIR: f"A folder is where the file should be: remove it or {FOLDER}",
    errno.EEXIST: f"A file is where a folder should be: remove it or {FOLDER}",
    errno.EBUSY: f"Another program uses it: end that, or {FOLDER}",
    errno.EXDEV: f"Files cannot be renamed there: {FOLDER}",
    **dict.fromkeys(NETWORK, f"Look at the network drive, or {FOLDER}"),
    **dict.fromkeys(CANNOT, f"That disk cannot do it: {FOLDER}"),
}
RUST = re.compile(r"\(os error (\d+)\)")  # safetensors'


def errno_of(error: BaseException | None) -> int | None:
    """The number of the system's error that `error` is, tells of in words, or came of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if told := RUST.search(str(error)):
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None


def reason(error: BaseException) -> str:
    """What went wrong, in a few words: the system's, where another library's words hide them."""
    if told := getattr(error, "strerror", None):
        return told
    number = errno_of(error)
    told = os.strerror(number) if number is not None else str(error)
    return (told or type(error).__name__).splitlines()[0]


def mend(error: BaseException) -> str:
    """What the user can do about it, as the beginning of a sentence that goes on with a comma."""
    return MENDS.get(errno_of(error), FOLDER.capitalize())


def cannot_write(path: Path, error: BaseException) -> RunError:
    """What a user is told when `path` could not be written."""
    return RunError(
        f"cannot write {path}: {reason(error)}. {mend(error)}, then run the same command again; what was "
        "saved before is intact."
    )


def sync(file: BinaryIO) -> None:
    """Put what was written to an open file on disk, where the disk can be told to."""
    with _without(CANNOT):
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """The same of a file that is written and closed."""
    with open(path, "rb+") as file:
        sync(file)


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on disk, where the disk can be told to."""
    with _without(CANNOT | NOT_MINE):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def as_any_new_file(path: Path) -> None:
    """Let others read a file as any new one, whatever the library allowed that wrote it; or leave it so."""
    mask = os.umask(0)
    os.umask(mask)
    with _without(CANNOT | NOT_MINE):
        os.chmod(path, 0o666 & ~mask)


def free_bytes(folder: Path) -> int | None:
    """The room there is; None where the disk does not say, or says that it has no size at all."""
    with _without(CANNOT | NOT_MINE):
        usage = shutil.disk_usage(folder)
        return usage.free if usage.total else None
    return None


@contextlib.contextmanager
def _without(numbers: set[int]) -> Iterator[None]:
    """Pass over the errors of these numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
