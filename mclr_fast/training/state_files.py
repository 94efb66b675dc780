"""One saved state on disk: torch.distributed.checkpoint's files, and the marker that makes them count."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, Metadata
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    ChunkStorageMetadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from mclr_fast.runtime.disk import sync_file, sync_folder
from mclr_fast.runtime.files import file_sha256, write_json
from mclr_fast.runtime.formats import state_marker

MARKER = "complete.json"
METADATA, DATA = ".metadata", ".distcp"  # DCP's record, and the suffix of its other files


class DamagedState(Exception):
    """A folder that is no complete state of this run, and why."""


def mark_complete(folder: Path, content: dict[str, Any]) -> None:
    """Write the marker: `content`, and the size and SHA-256 of every file of DCP's. All is on disk then.

    What else lies there, as desktops and network drives leave it, is none of the state.
    """
    sync_file(folder / METADATA)  # this rank's own; every rank has synced its data
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name == METADATA or path.suffix == DATA
    }
    write_json(folder / MARKER, {**content, "files": files})
    sync_folder(folder)


def read_complete(folder: Path) -> dict[str, Any]:
    """The marker's content, once every file that it lists is seen to be as it was written.

    Errors    DamagedState where one is not; OSError for one that cannot be read, which may be whole; RunError
              for a state of a later format.
    """
    try:
        content = state_marker(json.loads((folder / MARKER).read_text()), folder)
        files = content["files"]
        found = {path.name for path in folder.iterdir()} - {MARKER}
        if missing := sorted(files.keys() - found):
            raise DamagedState(f"{missing[0]} is missing")
        for name, written in files.items():
            size = (folder / name).stat().st_size
            if size != written["bytes"]:
                raise DamagedState(f"{name} has {size:,} bytes of {written['bytes']:,}")
            if file_sha256(folder / name) != written["sha256"]:
                raise DamagedState(f"the content of {name} has changed")
    except FileNotFoundError as error:
        raise DamagedState(f"{Path(error.filename).name} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedState(f"{MARKER} is not a marker of ours ({error})") from None
    return content


class StateWriter(FileSystemWriter):
    """DCP's writer, which says when this rank's data are written, on a disk that may not know syncing."""

    def __init__(self, folder: Path, written: Callable[[], None]):
        super().__init__(folder, overwrite=False, sync_files=False)  # its own takes EINVAL for a failure
        self._written = written

    def write_data(self, plan, planner):
        """DCP's, synced, then `written()`."""
        future = super().write_data(plan, planner)
        for name in {result.storage_data.relative_path for result in future.wait()}:
            sync_file(Path(self.path) / name)
        self._written()
        return future


class StateReader(FileSystemReader):
    """DCP's reader, which unpickles nothing but DCP's own records and opens no file but those named."""

    def __init__(self, folder: Path, files: Collection[str]):
        super().__init__(folder)
        self._files = set(files)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The record `.metadata`. DamagedState when it holds anything else."""
        try:
            with open(Path(self.path) / METADATA, "rb") as file:
                metadata = _RecordUnpickler(file).load()
            outside = {info.relative_path for info in metadata.storage_data.values()} - self._files
        except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, IndexError, KeyError) as error:
            raise DamagedState(f"{self.path}: .metadata is no record of DCP's ({error})") from None
        if outside:
            raise DamagedState(
                f"{self.path}: .metadata names {sorted(outside)[0]!r}, which is not the state's"
            )
        metadata.storage_meta.load_id = self.load_id
        return metadata


_RECORDS = (
    Metadata,
    TensorStorageMetadata,
    ChunkStorageMetadata,
    TensorProperties,
    MetadataIndex,
    StorageMeta,
    _MEM_FORMAT_ENCODING,
    _StorageInfo,
)
_ALLOWED: dict[tuple[str, str], Any] = {(cls.__module__, cls.__name__): cls for cls in _RECORDS}
_ALLOWED |= {("torch", n): v for n, v in vars(torch).items() if isinstance(v, torch.dtype)}
_ALLOWED |= {
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
}
# The folder that a state was written to, which nobody reads. Python 3.13 moved the class.
_ALLOWED |= {
    (module, "PosixPath"): lambda *parts: "/".join(parts) for module in ("pathlib", "pathlib._local")
}


class _RecordUnpickler(pickle.Unpickler):
    """Knows the names of DCP's records, exactly; any other name is an error."""

    def find_class(self, module: str, name: str) -> Any:
        """An allowed class or function."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
