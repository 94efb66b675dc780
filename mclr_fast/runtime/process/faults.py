"""Failures on order, so that tests can see that no run is lost: MCLR_FAST_FAULT=rank:step:kind."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from ..errors import RunError

# kind -> the moment it strikes; those after "update" are moments of the save that begins at that step.
KINDS = {
    "sigkill": "update",
    "sigterm": "update",
    "exception": "update",
    "disk-full": "written",
    "sigkill-written": "written",  # the data are on disk, nothing says so yet
    "sigkill-marked": "marked",  # complete, under its temporary name
    "truncate": "saved",  # a file cut short after the save, as by a disk that lies; then killed
}


class Fault:
    """The failure that MCLR_FAST_FAULT orders for this rank, if any; it strikes once.

    After a restart by torchrun (--max-restarts) it does not strike again.
    """

    def __init__(self, rank: int, batch_size: int):
        """RunError when the variable is set to something that is no fault."""
        self.kind, self.images_seen = "", 0
        ordered = os.environ.get("MCLR_FAST_FAULT", "")
        if not ordered:
            return
        victim, _, rest = ordered.partition(":")
        step, _, kind = rest.partition(":")
        if not (victim.isdigit() and step.isdigit() and kind in KINDS):
            raise RunError(f"MCLR_FAST_FAULT={ordered} is not rank:step:kind; kinds: {', '.join(KINDS)}.")
        if int(victim) == rank and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            self.kind, self.images_seen = kind, int(step) * batch_size

    def at(self, moment: str, images_seen: int, folder: Path | None = None) -> None:
        """Strike if this is the moment; folder: where the state of this moment is."""
        if not self.kind or moment != KINDS[self.kind] or images_seen != self.images_seen:
            return
        kind, self.kind = self.kind, ""
        if kind == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "exception":
            raise RuntimeError("MCLR_FAST_FAULT: an exception")
        elif kind == "disk-full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        else:
            if kind == "truncate":
                largest = max(folder.glob("*.distcp"), key=lambda path: path.stat().st_size)
                os.truncate(largest, largest.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
