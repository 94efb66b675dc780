"""log.jsonl and the progress bar; rank 0 only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tqdm import tqdm

from .checkpoint import replacing
from .errors import RunError


class RunLog:
    """Appends one JSON line per logged step. Other ranks hold one with no path and write nothing."""

    def __init__(self, path: Path | None):
        self.path = path

    def write(self, line: dict) -> None:
        """Append one line."""
        if self.path is not None:
            try:
                with open(self.path, "a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise RunError(f"cannot write {self.path}: {error.strerror}.") from error

    def rewind(self, arm: str, images_seen: int) -> None:
        """Drop an arm's lines past `images_seen`, which a resumed run will write again."""
        if self.path is None or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # a line cut short when the run was killed
                continue
            if record["arm"] != arm or record["images_seen"] <= images_seen:
                kept.append(line + "\n")
        with replacing(self.path) as temporary:
            temporary.write_text("".join(kept))


def progress_bar(description: str, total: int, initial: int, enabled: bool, unit: str = "images") -> tqdm:
    """A bar on stderr; where that is a file or pipe, a line now and then."""
    terminal = sys.stderr.isatty()
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        disable=not enabled,
        leave=not terminal,
        unit=f" {unit}",
        dynamic_ncols=terminal,
        ascii=not terminal,
        mininterval=0.2 if terminal else 15,
        smoothing=0.05,
    )


def say(enabled: bool, text: str) -> None:
    """One line for the user, above any bar."""
    if enabled:
        tqdm.write(text)
        sys.stdout.flush()
