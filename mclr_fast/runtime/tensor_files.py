"""Named groups of tensors in one safetensors file, with a JSON value beside them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from .disk import CANNOT, errno_of
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
    """What `save_tensors` wrote: (groups, meta). RunError for a file that is damaged or cannot be read."""
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with open_tensors(path) as file:
            meta = json.loads((file.metadata() or {}).get("meta", "null"))
            for key in file.keys():  # noqa: SIM118
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error}).") from error
    except (SafetensorError, ValueError) as error:
        raise RunError(f"{path} is damaged or not a safetensors file of ours ({error}).") from error
    return groups, meta


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file as `safe_open` gives it; read as a whole where its disk cannot map files."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
        except OSError as error:
            if errno_of(error) not in CANNOT:
                raise
            file = _InMemory(path)
        yield file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file by name. SafetensorError for one that is damaged."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


class _InMemory:
    """The same methods over a file's bytes."""

    def __init__(self, path: Path):
        content = path.read_bytes()
        self._tensors = load(content)
        self._metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    def metadata(self) -> dict[str, str] | None:
        return self._metadata.get("__metadata__")
