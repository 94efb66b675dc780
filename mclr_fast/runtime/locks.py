"""Lock files: what several processes of one command must not do at the same time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .disk import lock
from .ranks import Ranks
from .signals import StopRequest

LOOK_EVERY = 0.5  # seconds between looks at a lock that another process holds


@contextlib.contextmanager
def held(path: Path, ranks: Ranks) -> Iterator[bool]:
    """Whether this run, of whatever number of ranks, holds the lock file at `path` during the block.

    The system frees a lock when the process that holds it ends, however it ends: none goes stale.
    """
    files = []
    try:
        yield ranks.on_main(_take, path, files)
    finally:
        for file in files:
            file.close()


@contextlib.contextmanager
def waited_for(path: Path, ranks: Ranks, stop: StopRequest) -> Iterator[None]:
    """Hold the lock file at `path` during the block, once the process that holds it is done."""
    files = []

    def take() -> None:
        while not _take(path, files):
            stop.check()
            time.sleep(LOOK_EVERY)

    try:
        yield ranks.on_main(take)
    finally:
        for file in files:
            file.close()


@contextlib.contextmanager
def waited_for_alone(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path` in this process, whatever its rank; `check()` is called while it waits."""
    files = []
    try:
        while not _take(path, files):
            check()
            time.sleep(LOOK_EVERY)
        yield
    finally:
        for file in files:
            file.close()


def _take(path: Path, files: list) -> bool:
    """Try once; a file that is locked is put into `files`, and closing it frees the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "w")  # noqa: SIM115
    if not lock(file, path):
        file.close()
        return False
    files.append(file)
    return True
