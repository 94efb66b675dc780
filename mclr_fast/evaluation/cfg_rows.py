"""A shipped base's rows under classifier-free guidance, stored because they cost minutes to make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mclr_fast.runtime import formats

from .rows import Row


def stored_cfg_rows(model_folder: Path, base_sha256: str, protocol: dict[str, Any]) -> dict[float, Row]:
    """Rows by guidance from cfg.json beside a model; none unless made for this model and protocol."""
    path = model_folder / "cfg.json"
    if not path.exists():
        return {}
    stored = formats.cfg(json.loads(path.read_text()), path)
    if stored["base_sha256"] != base_sha256 or stored["protocol"] != protocol:
        return {}
    rows = [Row.from_json(row) for row in stored["rows"]]
    return {row.guidance: row for row in rows}


def cfg_file(base_sha256: str, protocol: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The content of cfg.json, without times. `protocol` holds the seeds and the sampler's settings."""
    return {
        "format": formats.CFG_FORMAT,
        "base_sha256": base_sha256,
        "protocol": protocol,
        "rows": [row.timed(None).to_json() for row in rows],
    }
