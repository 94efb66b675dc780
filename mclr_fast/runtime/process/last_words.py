"""What a run's ranks end with: the error of the one that failed first, whatever the others then do.

That one puts its line into the store by which the ranks met, and prints it. The others' collectives break
when it leaves; they find the line there, and say nothing else. torchrun, which ends with a summary, is handed
the same line by every rank.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress

import torch.distributed as dist

from .launch import Launch

GRACE = 10.0  # seconds for torchrun to end the others, or for them to read why
POLL = 0.05


def is_lost(error: BaseException | None) -> bool:
    """Whether that is no error of this rank's, but a collective broken by another that has left."""
    while error is not None:
        # gloo has no class of its own, and what it says may have become part of a longer line.
        if isinstance(error, dist.DistError) or "gloo/transport" in str(error):
            return True
        error = error.__cause__
    return False


class LastWords:
    """The first error of several ranks, in a store that all of them see."""

    def __init__(self, store: dist.Store, place: Launch):
        self._store, self._place = store, place

    def claim(self, line: str) -> tuple[bool, str]:
        """Make `line` what the ranks end with, unless another is -> whether it is this rank's, the line."""
        mine = f"{self._place.rank} {line}"
        try:
            said = self._store.compare_set("error", "", mine).decode()
            if said != mine:
                self._store.add("read", 1)
        except RuntimeError:  # the store went with its rank: nobody is left to say more
            return True, line
        return said == mine, said.partition(" ")[2]

    def read(self) -> str | None:
        """The line that the ranks end with, if one has failed."""
        with suppress(RuntimeError):
            if self._store.check(["error"]):
                self._store.add("read", 1)
                return self._store.get("error").decode().partition(" ")[2]
        return None

    def linger(self) -> None:
        """Without torchrun rank 0 holds the store: keep it until the others have read."""
        if self._place.rank == 0 and not dist.is_torchelastic_launched():
            with suppress(RuntimeError):
                wait(GRACE, until=lambda: self._store.add("read", 0) >= self._place.size - 1)


def wait(seconds: float, until: Callable[[], bool]) -> None:
    """Wait until that holds, at most so long."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(POLL)


def tell_torchrun(line: str) -> None:
    """Make the line what torchrun's summary shows of this process, where torchrun has started it."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path and dist.is_torchelastic_launched():
        shown = {"py_callstack": f"error: {line}", "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w") as file:
            json.dump({"message": {"message": f"error: {line}", "extraInfo": shown}}, file)
