"""Named groups of tensors in one safetensors file, with a JSON value beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import RunError
from .files import replacing


def save_tensors(path: Path, groups: Mapping[str, Mapping[str, Tensor]], meta: Any = None) -> None:
    """Write named groups of tensors as "group/name" in one safetensors file, atomically."""
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"meta": json.dumps(meta)})


def load_tensors(path: Path) -> tuple[dict[str, dict[str, Tensor]], Any]:
    """What `save_tensors` wrote: (groups, meta). RunError for a damaged file."""
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "null"))
            for key in file.keys():  # noqa: SIM118
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, ValueError, OSError) as error:
        raise RunError(f"{path} is damaged or not a safetensors file of ours ({error}).") from error
    return groups, meta
