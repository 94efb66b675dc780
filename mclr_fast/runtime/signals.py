"""SIGTERM and SIGINT ask the run to save and stop."""

from __future__ import annotations

import signal

from .errors import Interrupted


class StopRequest:
    """Set by the first SIGTERM or SIGINT; the loop looks at it between steps, sampling between batches."""

    def __init__(self):
        """Installs the handlers; call in the main thread."""
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, _number, _frame) -> None:
        self.requested = True

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived. Only where the state on disk is up to date."""
        if self.requested:
            raise Interrupted
