"""What the files that a run's options name hold, so that a run is known by contents and not by spellings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset, open_dataset
from mclr_fast.data.sources.identity import digest
from mclr_fast.methods.need_checks import SOURCES
from mclr_fast.models.storage.files import identity as model_identity
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256

Fingerprint = dict[str, Any] | list[Any] | None
"""Digests by what they are of; of an option with several values a list; None where there is none (yet)."""

UNCOMPARED = ("read", "times")  # how it was looked at, and what a copy changes too
MOST_WHOLE = 1 << 26  # bytes of a file up to which it is read whole
PIECES, PIECE = 64, 1 << 16  # what is read of a larger one: so many pieces of so many bytes


def fingerprints(config: RunConfig, dataset: Dataset | None = None) -> dict[str, Fingerprint]:
    """By option, of every option that names files. dataset: --data's, where it is open.

    A model's weights are read whole, of data see `identity_of`. None for what is not there yet, since the
    run makes it, and for what is named by address and read later.
    Errors    RunError for what cannot be read.
    """
    found: dict[str, Fingerprint] = {}
    for option, look in LOOKS.items():
        value = _value(config, option)
        try:
            if option == "data" and dataset is not None:
                found[option] = dataset.identity
            elif isinstance(value, tuple):
                found[option] = [look(str(each)) for each in value]
            else:
                found[option] = None if value is None else look(str(value))
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise RunError(str(error)) from error
    return found


def difference(then: Fingerprint, now: Fingerprint) -> list[str]:
    """What is another, by name; [] where nothing is. Checksums count where both have them."""
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return sorted({name for pair in zip(then, now, strict=True) for name in difference(*pair)})
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else ["number of files"]
    without = {"checksums"} if None in (then.get("checksums"), now.get("checksums")) else set()
    names = (then.keys() | now.keys()) - without - set(UNCOMPARED)
    return sorted(name for name in names if then.get(name) != now.get(name))


def is_known(fingerprint: Fingerprint) -> bool:
    """Whether there is one to compare with."""
    return bool(fingerprint) and (not isinstance(fingerprint, list) or None not in fingerprint)


def shown(fingerprint: Fingerprint) -> str:
    """In 12 characters, with the number of images."""
    parts = fingerprint if isinstance(fingerprint, list) else [fingerprint]
    kept = [{n: v for n, v in part.items() if n not in UNCOMPARED} for part in parts if part]
    words = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
    images = [f"{part['images']:,} images" for part in kept if "images" in part]
    return " ".join([words, *([f"({', '.join(images)})"] if images else [])])


def unseen(then: Fingerprint, now: Fingerprint) -> str | None:
    """What of images that were written since was not compared, in words; None where all was, or none were."""
    if not (isinstance(then, dict) and isinstance(now, dict)) or "images" not in now:
        return None
    if None not in (then.get("checksums"), now.get("checksums")) or now.get("times") == then.get("times"):
        return None
    read, images = now.get("read"), now["images"]
    return None if read in (None, images) else f"contents of {images - read:,} of its {images:,} images"


def _value(config: RunConfig, option: str) -> Any:
    group, _, name = option.rpartition(".")
    return getattr(getattr(config, group) if group else config, name)


def _images(path: str) -> Fingerprint:
    """Of a data set; of a file of arrays or statistics as of any file."""
    if path.endswith((".npz", ".pkl")):
        return _file(path)
    there = path == "mnist16" or Path(path).exists()
    return open_dataset(path).identity if there else None


def _positives(path: str) -> Fingerprint:
    return None if path in SOURCES else _images(path)


def _file(path: str) -> Fingerprint:
    """Of a file: all of its bytes, or of a large one its size and pieces spread evenly."""
    file = Path(path)
    if not file.is_file():
        return None
    size = file.stat().st_size
    if size <= MOST_WHOLE:
        return {"bytes": size, "contents": file_sha256(file)}
    with open(file, "rb") as opened:
        pieces = []
        for i in range(PIECES):
            opened.seek((size - PIECE) * i // (PIECES - 1))
            pieces.append(opened.read(PIECE))
    return {"bytes": size, "contents": digest(*pieces)}


def _folder(path: str) -> Fingerprint:
    """Of the files right in a folder, hidden ones aside."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    return {p.name: _file(str(p)) for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "."}


def _recipe(name: str) -> Fingerprint:
    """Of a user's own recipe, FILE.py:FUNCTION: its file."""
    return _file(name.rpartition(":")[0])


LOOKS: Mapping[str, Callable[[str], Fingerprint]] = {
    "recipe_file": _recipe,
    "data": _images,
    "init": model_identity,
    "objective.reference": model_identity,
    "objective.negatives": _images,
    "objective.negatives_model": model_identity,
    "objective.positives": _positives,
    "objective.classifier": _file,
    "eval.ref": _images,
    "eval.heldout": _images,
    "eval.gnet": model_identity,
    "eval.vae": _folder,
}
"""Option -> how what it names is looked at."""
