"""One lock file: who holds it, by the system's lock where the file system has one, and by what it says.

The file says host and process of its holder, who touches it every few seconds. On one host the system's lock
ends with its process, however that ends. Where there is none (ENOLCK, ENOSYS: object stores, network drives)
the process is looked for. Of another host neither need be known here, and it counts as gone when it has not
touched the file for a minute.

A file that is itself long in the writing has a `lock` without one beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import IO, Any

from .disk import CANNOT
from .logs import note

BEAT = 10.0  # seconds between touches
STALE = 60.0  # seconds without one after which another host's holder counts as gone
JUST_MADE = 5.0  # seconds in which a file without content may be another's that is being written


def lock(file: IO, path: Path) -> bool:
    """Whether `file` is this process's alone until it is closed; `path` is what the user knows it by.

    Where the disk has no locks it is taken to be, and a note says who must see to that now.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        note(
            f"the disk of {path.parent} has no locks ({error.strerror}): see to it that no other process "
            "writes there."
        )
    return True


class LockFile:
    """A lock at `path`; `take` and `release`, or leave it to the process's end.

    Attributes: holder: what the file said of another's when `take` last gave False: host, pid, started, beat
    (when it was last touched). is_certain: whether that was by the system's lock.
    """

    def __init__(self, path: Path):
        self.path = path
        self.holder: dict[str, Any] = {}
        self.is_certain = False
        self._descriptor: int | None = None
        self._released = threading.Event()

    def take(self) -> bool:
        """Whether this process holds it now. OSError where no file can be made."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor, is_new = self._open()
            locked = _flock(descriptor)
            if locked and not self._is_at_path(descriptor):  # its holder removed it meanwhile
                os.close(descriptor)
                continue
            if locked is False or not (is_new or self._is_free(descriptor, locked)):
                self.holder = _content(descriptor) | {"beat": os.fstat(descriptor).st_mtime}
                self.is_certain = locked is False
                os.close(descriptor)
                return False
            self._descriptor = descriptor
            self._write(bool(locked))
            threading.Thread(target=self._beat, name="lock", daemon=True).start()
            return True

    def release(self) -> None:
        """Remove the file, if it is this process's."""
        if self._descriptor is None:
            return
        self._released.set()
        with contextlib.suppress(OSError):
            if self._is_at_path(self._descriptor) and _is_this_process(_content(self._descriptor)):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> tuple[int, bool]:
        """The file, and whether it was made here."""
        while True:
            with contextlib.suppress(FileExistsError):
                return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
            with contextlib.suppress(FileNotFoundError):
                return os.open(self.path, os.O_RDWR), False

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _is_free(self, descriptor: int, locked: bool | None) -> bool:
        """Whether a file that was there is nobody's, where the system lets it be locked or has no locks."""
        holder, since = _content(descriptor), self._seconds_since_beat(descriptor)
        if not holder:
            return bool(locked) or since > JUST_MADE
        if holder.get("host") != socket.gethostname():
            return since > STALE
        return bool(locked and holder.get("flock")) or not _is_running(holder)

    def _seconds_since_beat(self, descriptor: int) -> float:
        """By the file system's clock, which may differ from this machine's."""
        probe = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now - os.fstat(descriptor).st_mtime

    def _write(self, locked: bool) -> None:
        said = {"host": socket.gethostname(), "pid": os.getpid(), "begun": _begun(os.getpid())}
        said |= {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "flock": locked}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(said).encode(), 0)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _flock(descriptor: int) -> bool | None:
    """Whether the system's lock is this process's now; None where there are none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL, as the file system has it
        return None
    return True


def _content(descriptor: int) -> dict[str, Any]:
    """What the file says, {} where it says nothing."""
    with contextlib.suppress(ValueError):
        said = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(said, dict) and isinstance(said.get("pid"), int):
            return said
    return {}


def _is_this_process(holder: dict[str, Any]) -> bool:
    return (holder.get("host"), holder.get("pid")) == (socket.gethostname(), os.getpid())


def _is_running(holder: dict[str, Any]) -> bool:
    """Whether that process of this host is there; another that was given its number is not it."""
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return holder.get("begun") in (None, _begun(holder["pid"]))


def _begun(pid: int) -> str | None:
    """When a process began, in the system's ticks; None where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
