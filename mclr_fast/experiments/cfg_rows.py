"""The shipped base's rows under classifier-free guidance, stored because they cost minutes to make."""

from __future__ import annotations

import json
from pathlib import Path


def stored_cfg_rows(model_folder: Path, base_sha256: str, protocol: dict) -> dict[str, dict]:
    """Rows by name from cfg.json beside a model; none unless made for this model and protocol."""
    path = model_folder / "cfg.json"
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    if stored["base_sha256"] != base_sha256 or stored["protocol"] != protocol:
        return {}
    return {row["name"]: row for row in stored["rows"]}


def cfg_file(base_sha256: str, protocol: dict, rows: list[dict]) -> dict:
    """The content of cfg.json. `protocol` holds the seeds and the sampler's settings."""
    return {"base_sha256": base_sha256, "protocol": protocol, "rows": rows}
