"""summary.json: what a run, a proof or a table leaves for its readers, written in one place."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mclr_fast
from mclr_fast.reports.summary import Stop, Summary
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime.files import write_json

__all__ = ["Stop", "Summary", "describe_device", "versions", "write_summary"]


def write_summary(outdir: Path, summary: Summary | TableSummary) -> None:
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
