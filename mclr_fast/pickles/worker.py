"""The process that reads pickles: one line of JSON with a path in, one line with what the file holds out.

It imports the standard library alone, gives itself limits, and forbids itself everything that Python's audit
hooks see, except to open the one file asked for, for reading.
"""

from __future__ import annotations

import contextlib
import encodings.cp437  # noqa: F401  zipfile decodes names with it, and later it could not be imported
import json
import os
import sys

from . import containers, kinds, tree
from .values import RefusedError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

MEMORY_BYTES = 1 << 28  # a snapshot of EDM2-S, 560 MB, takes 20 MiB
CPU_SECONDS = 30  # a file

_allowed: list[str] = []


def answer(path: str) -> dict:
    """{"holds": tree}, or {"refused": why}."""
    start = b""
    try:
        with open(path, "rb") as file:
            start, size = file.read(kinds.LOOK), file.seek(0, 2)
            if (kind := kinds.foreign(start, size)) is not None:
                return {"refused": f"it is {kind}"}
            return {"holds": tree.to_json(containers.read_file(file))}
    except RefusedError as error:
        words = None if start.startswith((b"\x80", b"PK")) else kinds.text(start)
        return {"refused": f"{error} It is a text that begins {words!r}." if words else str(error)}
    except MemoryError:
        return {"refused": f"reading it takes more than {MEMORY_BYTES >> 20} MiB of memory."}
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # without one it is `_forbid`'s
            return {"refused": f"it cannot be read ({error.strerror})."}
        if (words := kinds.text(start)) is not None:
            return {"refused": f"it is damaged or no pickled model but a text that begins {words!r}."}
        return {"refused": f"it is damaged or no pickled model ({type(error).__name__}: {str(error)[:200]})."}


def main() -> None:
    """Answer every line of standard input until it ends."""
    _limit("RLIMIT_AS", MEMORY_BYTES)
    _limit("RLIMIT_FSIZE", 0)
    _limit("RLIMIT_CORE", 0)
    sys.addaudithook(_forbid)
    for line in sys.stdin.buffer:
        path = json.loads(line)
        _allowed[:] = [path]
        used = sum(os.times()[:2])
        _limit("RLIMIT_CPU", int(used) + CPU_SECONDS)
        sys.stdout.write(json.dumps(answer(path)) + "\n")
        sys.stdout.flush()


def _limit(name: str, value: int) -> None:
    if resource is None:
        return
    number = getattr(resource, name)
    _, hard = resource.getrlimit(number)
    with contextlib.suppress(ValueError, OSError):  # macOS knows some of them by name only
        resource.setrlimit(number, (value, hard if name == "RLIMIT_CPU" else value))


def _forbid(event: str, arguments: tuple) -> None:
    """Every audited event but opening that file, and setting limits before it, ends in an error."""
    if event == "open" and arguments[0] in _allowed and arguments[1] == "r":
        return
    if event == "resource.setrlimit":
        return
    raise PermissionError(f"{event} is forbidden here")
