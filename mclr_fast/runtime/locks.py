"""What several processes of one command must not do at the same time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import RunError
from .lock_file import STALE, LockFile
from .logs import note
from .process.ranks import Ranks
from .process.signals import StopRequest, check_stop

LOOK_EVERY = 0.5  # seconds between looks at a lock that another process holds


@contextlib.contextmanager
def owned(path: Path, what: Path, ranks: Ranks) -> Iterator[None]:
    """Make `what` this run's, of whatever number of ranks, during the block, by the lock file at `path`.

    Errors    RunError, at once, with host and process of another that has it.
    """
    lock = LockFile(path)
    try:
        yield ranks.on_main(_own, lock, what)
    finally:
        lock.release()


@contextlib.contextmanager
def owned_alone(path: Path, what: Path) -> Iterator[None]:
    """As `owned`, in this process alone, whatever its rank."""
    lock = LockFile(path)
    try:
        yield _own(lock, what)
    finally:
        lock.release()


@contextlib.contextmanager
def held(path: Path, ranks: Ranks) -> Iterator[bool]:
    """Whether this run, of whatever number of ranks, holds the lock file at `path` during the block."""
    lock = LockFile(path)
    try:
        yield ranks.on_main(lock.take)
    finally:
        lock.release()


@contextlib.contextmanager
def waited_for(path: Path, ranks: Ranks, stop: StopRequest) -> Iterator[None]:
    """Hold the lock file at `path` during the block, once the process that holds it is done."""
    lock = LockFile(path)
    try:
        yield ranks.on_main(_wait_for, lock, stop.check)
    finally:
        lock.release()


@contextlib.contextmanager
def waited_for_alone(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path` in this process, whatever its rank; `check()` is called while it waits."""
    lock = LockFile(path)
    try:
        yield _wait_for(lock, check)
    finally:
        lock.release()


def _wait_for(lock: LockFile, check: Callable[[], None]) -> None:
    while not lock.take():
        check()
        time.sleep(LOOK_EVERY)


def refuse_if_owned(path: Path, what: Path) -> None:
    """RunError, as of `owned`, where another process has `what` now; before what takes long."""
    if path.exists():
        with owned_alone(path, what):
            pass


def _own(lock: LockFile, what: Path) -> None:
    """Take it, or raise the RunError that names its holder.

    One on another host, where the file system has no lock that says so, is watched until it is seen to live,
    or for so long that it does not: a job that was killed and began again elsewhere needs no help.
    """
    beat = None
    try:
        while not lock.take():
            by = _said_of(lock.holder)
            taken = f"{what} is being written by {by}: wait for it, stop it, or name another place."
            if lock.is_certain or lock.holder.get("host") in (None, socket.gethostname()):
                raise RunError(taken)
            if beat not in (None, lock.holder["beat"]):
                raise RunError(f"{taken} If that process is gone, delete {lock.path}.")
            if beat is None:
                beat = lock.holder["beat"]
                note(
                    f"{what} was being written by {by}: looking whether it still is, {STALE:.0f} seconds at "
                    f"most; if you know that it is not, delete {lock.path}."
                )
            check_stop()
            time.sleep(LOOK_EVERY)
    except OSError as error:
        # What is to be written there may fail too, and then says so.
        note(f"{lock.path} cannot be kept ({error.strerror}): another process in {what} would not be seen.")


def _said_of(holder: dict[str, Any]) -> str:
    if "host" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder['host']} (since {holder['started']})"
