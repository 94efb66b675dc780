"""SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask the run to save and stop."""

from __future__ import annotations

import signal

from .errors import Interrupted


class StopRequest:
    """Set by the first such signal; the loop looks at it between steps, sampling between batches."""

    def __init__(self):
        """Installs the handlers; call in the main thread."""
        global _newest
        self.requested = False
        _newest = self
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
                signal.signal(number, self._request)

    def _request(self, _number, _frame) -> None:
        self.requested = True

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived. Only where the state on disk is up to date."""
        if self.requested:
            raise Interrupted


_newest: StopRequest | None = None


def check_stop() -> None:
    """Raise Interrupted if the process was told to stop; for work that is handed no StopRequest."""
    if _newest is not None:
        _newest.check()
