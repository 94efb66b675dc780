"""SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask the run to save and stop; a second Ctrl-C ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from ..errors import Interrupted, InterruptedAtOnce
from .launch import is_first_of_node

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
ONE_KEY = 0.5  # seconds: a terminal and a launcher (torchrun, srun) both pass on one Ctrl-C
UNHEARD = 3.0  # seconds after which the main thread is held by something that hears no signal
AT_ONCE = "ended at once; what was saved before is intact.\n"


class StopRequest:
    """Set by the first such signal; the loop looks at it between steps, sampling between batches.

    Before the first look there is nothing to save, and a signal raises InterruptedAtOnce wherever the main
    thread is: in a read that waits, too. Afterwards it is the looks that raise. A second SIGINT, after half a
    second in which one Ctrl-C may come twice, ends the process with code 130, whatever holds the main thread.
    """

    def __init__(self):
        """Installs the handlers; call in the main thread."""
        global _newest
        self._requested = self._looked_at = False
        self._first_ctrl_c: float | None = None
        _newest = self
        for number in ASKING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
                signal.signal(number, self._request)
        _watch()

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived. Only where the state on disk is up to date, or soon is."""
        self.look()
        return self._requested

    def look(self) -> None:
        """From here on a signal raises nothing by itself."""
        self._looked_at = True

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived. Only where the state on disk is up to date."""
        if self.requested:
            raise Interrupted

    def _request(self, _number, _frame) -> None:
        """In the main thread, between two of Python's instructions."""
        first, self._requested = not self._requested, True
        if first and not self._looked_at:
            raise InterruptedAtOnce

    def _arrived(self, number: int) -> None:
        """In the watching thread, at once."""
        if signal.getsignal(number) != self._request:
            return
        if number == signal.SIGINT:
            self._count_ctrl_c()
        if not self._looked_at:
            end = time.monotonic() + UNHEARD
            while not self._requested and time.monotonic() < end:
                time.sleep(0.05)
            if not (self._requested or self._looked_at):
                _leave(143)

    def _count_ctrl_c(self) -> None:
        now = time.monotonic()
        if self._first_ctrl_c is None:
            self._first_ctrl_c = now
            if self._looked_at and is_first_of_node():
                _write("\nstopping as soon as all is saved; Ctrl-C again ends at once.\n")
        elif now - self._first_ctrl_c > ONE_KEY:
            _leave(130)


_newest: StopRequest | None = None
_watching: socket.socket | None = None


def check_stop() -> None:
    """Raise Interrupted if the process was told to stop; for work that is handed no StopRequest."""
    if _newest is not None and _newest._requested:
        raise Interrupted


def _watch() -> None:
    """Have a thread told of each signal: the main thread may be in a collective, and hear of none."""
    global _watching
    if _watching is None:
        _watching, theirs = socket.socketpair()
        theirs.setblocking(False)
        threading.Thread(target=_listen, args=(_watching,), name="signals", daemon=True).start()
        signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)


def _listen(numbers: socket.socket) -> None:
    while number := numbers.recv(1):
        if _newest is not None:
            _newest._arrived(number[0])


def _leave(code: int) -> None:
    _write(AT_ONCE)
    os._exit(code)


def _write(text: str) -> None:
    """Past Python's own buffers, which the main thread may hold."""
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), text.encode())
