"""log.jsonl, who else is told, and lines for the user; rank 0 only."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from .disk import cannot_write
from .errors import Interrupted, RunError, one_line
from .files import replacing
from .process.launch import is_first_of_node
from .trackers import Tracker

if TYPE_CHECKING:
    import numpy as np

TEXT = "log.txt"


class RunLog:
    """Appends one JSON line per logged step, and tells the trackers; log.txt beside it has lines for people.

    Other ranks hold one with no path and no trackers, and write nothing. As a context it closes them.
    A tracker that raises is told no more; the run goes on.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.trackers: list[Tracker] = []

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_) -> None:
        failed = not (kind is None or issubclass(kind, Interrupted))
        if error is not None:
            with contextlib.suppress(RunError):  # the error itself is what the run ends with
                self._note(f"failed: {one_line(error)}" if failed else "stopped by a signal")
        self._tell(lambda tracker: tracker.close(failed))

    def write(self, line: dict) -> None:
        """Append one line."""
        if self.path is not None:
            try:
                with open(self.path, "a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise cannot_write(self.path, error) from error
        self._tell(lambda tracker: tracker.log(line["arm"], line["images_seen"], _numbers(line)))

    def say(self, text: str) -> None:
        """One line for the user, and with the time in log.txt."""
        if self.path is not None:
            say(True, text)
            self._note(text)

    def _note(self, text: str) -> None:
        if self.path is None:
            return
        stamp, path = datetime.now().isoformat(sep=" ", timespec="seconds"), self.path.with_name(TEXT)
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{stamp}  {text.strip()}\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    def evaluated(self, row: dict, picture: np.ndarray | None = None) -> None:
        """Tell the trackers of an arm's evaluation. picture: of its samples, uint8 [H,W,C]."""
        place = (row["name"], row["images_seen"])
        self._tell(lambda tracker: tracker.evaluated(*place, _numbers(row), picture))

    def lines(self) -> list[dict]:
        """What was written, in order."""
        if self.path is None or not self.path.exists():
            return []
        read = []
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # a line cut short when the run was killed
                read.append(json.loads(line))
        return read

    def rewind(self, arm: str, images_seen: int) -> None:
        """Drop an arm's lines past `images_seen`, which a resumed run will write again."""
        if self.path is None or not self.path.exists():
            return
        kept = [line for line in self.lines() if line["arm"] != arm or line["images_seen"] <= images_seen]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._tell(lambda tracker: tracker.rewind(arm, images_seen))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self.trackers):
            try:
                what(tracker)
            except Exception as error:  # another package's, of its files or its network
                self.trackers.remove(tracker)
                who = type(tracker).__name__
                say(
                    True,
                    f"warning: {who} fails ({one_line(error)}): the run goes on without it, and {self.path} "
                    "has every line.",
                )


def _numbers(line: dict) -> dict[str, float]:
    """What can be drawn, over images seen."""
    return {k: v for k, v in line.items() if isinstance(v, int | float) and k != "images_seen"}


_noted: set[str] = set()


def note(*lines: str) -> None:
    """What the user should know of a file, on stderr: by a node's first rank, each line once a process."""
    for line in lines:
        if is_first_of_node() and line not in _noted:
            _noted.add(line)
            print(f"note: {' '.join(line.split())}", file=sys.stderr)


def say(enabled: bool, text: str) -> None:
    """One line for the user, above any bar."""
    if enabled:
        tqdm.write(text)
        sys.stdout.flush()
