"""Formats of the files that a run leaves, by number, and how older ones are read.

A file without a number is of format 1.
"""

from __future__ import annotations

from typing import Any

CONFIG_FORMAT = SUMMARY_FORMAT = EVALUATION_FORMAT = CFG_FORMAT = STATE_FORMAT = 2


def evaluation_row(meta: dict[str, Any], objective: str) -> dict[str, Any]:
    """The row of a kept evaluation, for `Row.from_json`. objective: what its run trains with."""
    if meta.get("format", 1) > 1:
        return {name: value for name, value in meta.items() if name != "format"}
    name, protocol = meta["name"], "mnist16-classifier"
    kind, guidance = "trained", 1.0
    if name in ("real", "base"):
        kind = name
    elif name.startswith("cfg-"):
        kind, guidance = "guidance", float(name.removeprefix("cfg-"))
    elif name.startswith("denoising") and objective != "denoising":
        kind = "control"
    metrics = {key: meta[key] for key in ("fd", "fd_heldout", "is", "precision", "recall", "accuracy")}
    return {**meta, "kind": kind, "guidance": guidance, "chosen_by": protocol, "metrics": {protocol: metrics}}
