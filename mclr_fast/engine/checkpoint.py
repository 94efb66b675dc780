"""Files that a run leaves: written whole or not at all, read without unpickling anything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import RunError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success fsync it and rename it to `path`.

    Errors    RunError when the disk is full or read-only; the temporary file is removed and what was
              at `path` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors makes files that only their owner can read
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"cannot write {path}: {reason}. Free some space or choose another --outdir, then run the "
            "same command again; what was saved before is intact."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


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


def save_model(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a model folder that `mclr_fast.models.load` reads: config.json, model.safetensors."""
    write_json(folder / "config.json", config)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
