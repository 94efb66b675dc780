"""summary.json: what a run, a proof or a table leaves for its readers, written in one place."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mclr_fast
from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.formats import SUMMARY_FORMAT


@dataclass(frozen=True)
class Stop:
    """Why and when a training was ended before its time."""

    why: str
    images_seen: int


@dataclass(frozen=True)
class Summary:
    """One run's results.

    Attributes:
        settings: the objective with its settings, in words; images_seen: of the trained arm.
        seconds: of training and evaluating, over all calls of the run.
        turned_at: images seen at the lowest FD, where a later evaluation is worse.
        skipped_batches: by arm; classifier: how good the noise-conditional one is, where there is one.
        comparison: FD(best) - FD(other) with its interval, by the other's name.
        protocol: what the rows were measured with: only rows with the same one compare.
    """

    recipe: str
    objective: str
    settings: str
    seed: int | None
    images_seen: int
    seconds: float
    rows: Sequence[Row]
    best: Row | None
    turned_at: int | None
    stopped: Stop | None
    skipped_batches: dict[str, int]
    classifier: dict[str, Any] | None
    comparison: dict[str, list[float]]
    grid_seeds: list[int] | None
    protocol: dict[str, Any] | None
    versions: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)
    """What a proof has beside these."""

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        content = {name: value for name, value in vars(self).items() if name != "more"}
        content["rows"] = [row.to_json() for row in self.rows]
        content["best"] = self.best and self.best.to_json()
        content["stopped"] = self.stopped and vars(self.stopped)
        return {"format": SUMMARY_FORMAT, **content, **self.more}


def write_summary(outdir: Path, summary: Summary) -> None:
    """Write outdir/summary.json, whole or not at all."""
    write_json(outdir / "summary.json", summary.to_json())


def versions(device: torch.device, base_sha256: str | None) -> dict[str, Any]:
    """What the figures were made with."""
    return {
        "mclr_fast": mclr_fast.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": describe_device(device),
        "base_sha256": base_sha256,
    }


def describe_device(device: torch.device) -> str:
    """ "cuda (name)" or "cpu (n threads)"."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
