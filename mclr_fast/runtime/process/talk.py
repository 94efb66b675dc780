"""Talking never ends the work: stdout and stderr that are closed, broken, full, or know ASCII alone."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

GONE = {errno.EPIPE, errno.EBADF, errno.EIO, errno.ENXIO, errno.ECONNRESET, errno.ESHUTDOWN}
"""What writing to a pipe that nobody reads any more gives, or to a terminal that was closed."""


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Print what you like during the block: nothing is raised. Also a decorator, of the doors' `main`.

    What the reader has gone from is dropped. What stdout cannot take for another reason, such as a full disk,
    goes to stderr. Letters that a stream does not know are written as \\u2713 and the like.
    """
    before = sys.stdout, sys.stderr
    for descriptor in (0, 1, 2):
        _fill(descriptor)
    sys.stderr = _Stream(sys.stderr)
    sys.stdout = _Stream(sys.stdout, instead=sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _fill(descriptor: int) -> None:
    """Give a standard descriptor that was closed to the null device, before a file of ours is given it."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


class _Stream(io.TextIOBase):
    """Raises nothing; flushed at each line's end, so that where it fails no line before is lost."""

    def __init__(self, stream: TextIO | None, instead: TextIO | None = None):
        """instead: who is told what the stream cannot take while it is still read."""
        self._stream: TextIO = stream if stream is not None else _null()
        self._instead = instead
        self._line = ""  # what was written since the stream last took everything
        if getattr(self._stream, "errors", None) == "strict" and hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str | None:
        """The stream's own, which tells a bar what it may draw with."""
        return getattr(self._stream, "encoding", None)

    @property
    def errors(self) -> str | None:
        """The stream's own."""
        return getattr(self._stream, "errors", None)

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether a terminal is there, and open."""
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Write, or give the stream up."""
        self._line += text
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError) as error:
            self._give_up(error)
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Flush, or give the stream up."""
        try:
            try:
                self._stream.flush()
            except BlockingIOError:  # another program made the descriptor so, and shares it
                os.set_blocking(self._stream.fileno(), True)
                self._stream.flush()
            self._line = ""
        except (OSError, ValueError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Not ours to close."""

    def _give_up(self, error: OSError | ValueError) -> None:
        """Write to `instead` from here on, or nowhere; ValueError is a closed stream's."""
        with contextlib.suppress(OSError, ValueError):  # what is left in its buffer goes nowhere at the end
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        if isinstance(error, OSError) and error.errno not in GONE and self._instead is not None:
            reason = error.strerror or error
            self._instead.write(f"warning: stdout cannot be written ({reason}); what is said goes here.\n")
            self._stream = self._instead
            self._stream.write(self._line)
        else:
            self._stream = _null()
        self._line = ""


def _null() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
