"""The three files that pickled models come in: a plain pickle, torch.save's zip, and its older stream."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from typing import Any, BinaryIO

from . import kinds
from .machine import Machine
from .values import STORAGES, Bytes, Global, RefusedError, Storage, Window, check

STREAM_START = re.compile(  # the pickle of torch's magic number, of protocol 2 to 5, with or without a frame
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL
)
LOOK = 25  # bytes that it takes at most
STREAM_VERSION = 1001


def read_file(file: BinaryIO) -> Any:
    """The value that a file holds, whichever of the three it is."""
    size = file.seek(0, 2)
    window = Window(file, 0, size)
    file.seek(0)
    start = file.read(LOOK)
    if start.startswith(b"PK"):
        return read_zip(file, size)
    if STREAM_START.match(start):
        return read_stream(window)
    return _machine(file, _no_persistent_ids).run(window)


def read_stream(window: Window) -> Any:
    """torch.save's older form: magic number, version, machine, value, storage keys, then every storage."""
    storages: dict[str, Storage] = {}
    machine = _machine(window.file, lambda pid: _storage(pid, storages))
    _, version, system, value, keys = (machine.run(window) for _ in range(5))
    if version != STREAM_VERSION or check(system, dict).get("little_endian") is not True:
        raise RefusedError(f"it is a torch stream of version {str(version)[:20]}, or not little-endian.")
    for key in check(keys, list):
        storage = storages.get(check(key, str))
        (numel,) = struct.unpack("<q", window.read(8))
        if storage is None or numel != storage.numel:
            raise RefusedError(f"its storage {key[:40]!r} is not as long as it announces.")
        storage.start = window.position
        _skip(window, numel * storage.itemsize)
    return value


def read_zip(file: BinaryIO, size: int) -> Any:
    """torch.save's zip: data.pkl, and one uncompressed entry a storage."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise RefusedError(
            f"it is a damaged zip, or its end is missing: its download or copy was cut short ({error})."
        ) from None
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    folder = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
    if len(pickles) != 1 or f"{folder}constants.pkl" in entries:
        raise RefusedError(f"it is {kinds.of_zip(list(entries))}")
    if f"{folder}byteorder" in entries:
        order = _entry(file, size, entries[f"{folder}byteorder"])
        if order.read(min(6, order.end - order.position)) != b"little":
            raise RefusedError("its tensors are not little-endian.")
    storages: dict[str, Storage] = {}
    value = _machine(file, lambda pid: _storage(pid, storages)).run(_entry(file, size, entries[pickles[0]]))
    for key, storage in storages.items():
        name = f"{folder}data/{key}"
        if name not in entries:
            raise RefusedError(f"its storage {key[:40]!r} is missing.")
        window = _entry(file, size, entries[name])
        storage.start = window.position
        _skip(window, storage.numel * storage.itemsize)
    return value


def _entry(file: BinaryIO, size: int, entry: zipfile.ZipInfo) -> Window:
    """The bytes of one entry of a zip, where they lie in the file."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise RefusedError(f"its entry {entry.filename[:40]!r} is compressed or encrypted.")
    header = Window(file, entry.header_offset, size).read(30)
    name_length, extra_length = struct.unpack("<26xHH", header)
    start = entry.header_offset + 30 + name_length + extra_length
    if header[:4] != b"PK\x03\x04" or start + entry.file_size > size:
        raise RefusedError(f"its entry {entry.filename[:40]!r} reaches past its end.")
    return Window(file, start, start + entry.file_size)


def _storage(pid: Any, storages: dict[str, Storage]) -> Storage | Global:
    """The storage that torch's persistent id describes, one for every key; or a module's class.

    The older stream describes classes of modules so, with their source, which is dropped.
    """
    if check(pid, tuple)[:1] == ("module",):
        return check(pid[1], Global)
    kind, storage_type, key, _, numel, *view = check(pid, tuple)
    dtype = STORAGES.get(check(storage_type, Global).name)
    if kind != "storage" or dtype is None or check(numel, int) < 0 or view not in ([], [None]):
        raise RefusedError("it holds a persistent id that is no storage.")
    storage = storages.setdefault(check(key, str), Storage(*dtype, numel))
    if (storage.dtype, storage.numel) != (dtype[0], numel):
        raise RefusedError(f"it describes its storage {key[:40]!r} in two ways.")
    return storage


def _machine(file: BinaryIO, persistent) -> Machine:
    def load_storage(saved: Bytes) -> Storage:
        source = file if saved.inline is None else io.BytesIO(saved.inline)
        window = Window(source, saved.start, saved.end)
        if not STREAM_START.match(window.read(min(LOOK, saved.end - saved.start))):
            raise RefusedError("one of its storages is no torch stream.")
        storage = check(read_stream(Window(source, saved.start, saved.end)), Storage)
        storage.inline = saved.inline
        return storage

    return Machine(persistent, load_storage)


def _no_persistent_ids(_: Any) -> None:
    raise RefusedError("it holds persistent ids, and is neither torch's zip nor its stream.")


def _skip(window: Window, count: int) -> None:
    if count > window.end - window.position:
        raise RefusedError(f"a tensor of {count:,} bytes has {window.end - window.position:,}.")
    window.position += count
