"""The shipped base's rows under classifier-free guidance, stored because they cost minutes to make."""

from __future__ import annotations

import json
from pathlib import Path

from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime.formats import CFG_FORMAT, evaluation_row


def stored_cfg_rows(model_folder: Path, base_sha256: str, protocol: dict) -> dict[str, Row]:
    """Rows by name from cfg.json beside a model; none unless made for this model and protocol."""
    path = model_folder / "cfg.json"
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    if stored["base_sha256"] != base_sha256 or stored["protocol"] != protocol:
        return {}
    rows = [
        Row.from_json(evaluation_row({"format": stored.get("format", 1), **row}, ""))
        for row in stored["rows"]
    ]
    return {row.name: row for row in rows}


def cfg_file(base_sha256: str, protocol: dict, rows: list[Row]) -> dict:
    """The content of cfg.json. `protocol` holds the seeds and the sampler's settings."""
    content = {"base_sha256": base_sha256, "protocol": protocol}
    return {"format": CFG_FORMAT, **content, "rows": [row.to_json() for row in rows]}
