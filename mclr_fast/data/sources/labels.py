"""The classes of a source's images: dataset.json's, or the folders that they lie in."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .layout import PREPARE, Reading, check_layout
from .names import parts_of, shown, some

MEND = 'expected {"labels": [["file name", class index], ...]}, or a folder for every class'
EDM2_NAME = re.compile(r"\d{5}/img[^/]*\d{8}\.\w+")  # its folders hold 1,000 images each, not a class
MOST_CLASSES = 1_000_000  # a larger index is an id of something: a network has a row for every class below


@dataclass(frozen=True)
class Classes:
    """Attributes: labels int64 [n]; names by number; notes, what is to be said of them; made_with, what a
    dataset.json of `prepare` says of its making."""

    labels: np.ndarray
    names: list[str]
    notes: list[str] = field(default_factory=list)
    made_with: dict[str, Any] | None = None


def from_folders(
    path: str, root: str, names: Sequence[str], others: Sequence[str], folders: set[str], reading: Reading
) -> Classes:
    """Classes numbered by the sorted names of their folders, damaged images and all.

    others: files that are no images; folders: all there are. Both and names from `root` on.
    Errors    ValueError, one line: no folders, folders of two readings, a class without images.
    """
    if any("/" not in name for name in names) or all(EDM2_NAME.fullmatch(name) for name in names):
        stray = [name for name in names if "/" not in name]
        beside = f" ({some(stray)} lie in no folder)" if 0 < len(stray) < len(names) else ""
        raise ValueError(f"{path} has no dataset.json, so no labels{beside}; {MEND}")
    notes = check_layout(path, root, names, reading) if reading.class_level is None else []
    level = reading.class_level or 1
    parts = [name.split("/") for name in names]
    above = [name for name, found in zip(names, parts, strict=True) if len(found) <= level]
    if above:
        raise ValueError(
            f"{path}: {above[0]!r} lies above --class-level {level} ({len(above)} of {len(names)} images do)"
        )
    of_image = [found[level - 1] for found in parts]
    classes = sorted(set(of_image))
    _check_empty(path, root, names, others, classes, folders, level)
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[name] for name in of_image], dtype=np.int64)
    return Classes(labels, [shown(name) for name in classes], notes + _hints(classes))


def _check_empty(
    path: str,
    root: str,
    names: Sequence[str],
    others: Sequence[str],
    classes: Sequence[str],
    folders: set[str],
    level: int,
) -> None:
    found = {folder.rpartition("/")[2] for folder in folders if folder.count("/") == level - 1}
    empty = sorted(found - set(classes))
    if not empty:
        return
    inside_it = [name for name in others if empty[0] in name.split("/")[:-1]]
    but = f", but {some(inside_it)}" if inside_it else ""
    inside = len(classes) == 1 and len({n.split("/")[level] for n in names if n.count("/") > level}) > 1
    other = f"; for the folders in {shown(classes[0])}: {PREPARE} --within {shown(root + classes[0])}"
    raise ValueError(
        f"{path}: the class folder {empty[0]!r} holds no image ({len(empty)} of {len(found)} folders){but}; "
        f"fill or remove it: the classes are numbered by their folders{other if inside else ''}"
    )


def from_json(path: str, root: str, data: bytes, names: Sequence[str], others: Sequence[str]) -> Classes:
    """Classes as a dataset.json has them; "class_names" in it, which EDM2 does not look at, are their names.

    others: files beside the images. Errors: ValueError, one line: labels that do not fit the images.
    """
    try:
        said = json.loads(bytes(data), object_pairs_hook=_Pairs)
        labels = said["labels"]
        pairs = None if labels is None else labels.pairs if isinstance(labels, _Pairs) else labels
        found = None if pairs is None else dict(pairs)
    except Exception as error:  # damaged, or of another structure
        raise ValueError(f"{path}: dataset.json is malformed ({error!r}); {MEND}") from error
    if found is None:
        raise ValueError(f'{path}: dataset.json says "labels": null; {MEND}')
    if found.keys() != set(names):
        pairs = _from_root(root, [("/".join(parts_of(str(name))), label) for name, label in pairs], names)
        found = dict(pairs)
    if len(found) < len(pairs):
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        raise ValueError(
            f"{path}: dataset.json labels {twice[0]!r} twice ({len(twice)} of {len(names)} images); leave "
            "one label for each"
        )
    _check_names(path, found, names, others)
    for name in names:
        if type(found[name]) is not int or not 0 <= found[name] < MOST_CLASSES:
            raise ValueError(
                f"{path}: the label of {name!r} is {found[name]!r}; labels must be integer class indices "
                "from 0"
                + (
                    f" to at most {MOST_CLASSES - 1:,}"
                    if type(found[name]) is int and found[name] > 0
                    else ""
                )
            )
    labels = np.array([found[name] for name in names], dtype=np.int64)
    made_with = said.get("prepared")
    return Classes(
        labels,
        _names(said.get("class_names"), int(labels.max()) + 1),
        made_with=made_with if isinstance(made_with, dict) else None,
    )


class _Pairs(dict):
    """A JSON object that still knows what it said twice."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs


def _from_root(root: str, pairs: list[tuple[str, Any]], names: Sequence[str]) -> list[tuple[str, Any]]:
    """Names from `root` on, where dataset.json has them from further above."""
    if not root or not all(name.startswith(root) for name, _ in pairs) or {n for n, _ in pairs} & set(names):
        return pairs
    return [(name[len(root) :], label) for name, label in pairs]


def _check_names(path: str, labels: dict[str, Any], names: Sequence[str], others: Sequence[str]) -> None:
    unlabelled = [name for name in names if name not in labels]
    if unlabelled:
        raise ValueError(
            f"{path}: dataset.json has no label for {unlabelled[0]!r} "
            f"({len(unlabelled)} of {len(names)} images lack one); names must match exactly"
        )
    missing = sorted(labels.keys() - set(names))
    if not missing:
        return
    if missing[0] in others:
        raise ValueError(
            f"{path}: dataset.json labels {missing[0]!r}, which by its suffix is no image ({len(missing)} of "
            f"{len(labels)}); expected .png, .jpg and the like, or .npy"
        )
    raise ValueError(
        f"{path}: dataset.json labels {missing[0]!r}, which is not there ({len(missing)} of "
        f"{len(labels)} images are missing); bring them back, or take them out of it"
    )


def _names(said: Any, num_classes: int) -> list[str]:
    """A list by number, or an object; a class that it does not name is called by its number."""
    named = dict(enumerate(said)) if isinstance(said, list) else said if isinstance(said, dict) else {}
    found = (named.get(i, named.get(str(i))) for i in range(num_classes))
    return [name if isinstance(name, str) and name else str(i) for i, name in enumerate(found)]


def _hints(classes: Sequence[str]) -> list[str]:
    """What of these names may not be as it was meant."""
    notes = []
    natural = sorted(classes, key=_natural)
    if natural != list(classes):
        first, later = next(pair for pair in zip(classes, natural, strict=True) if pair[0] != pair[1])
        notes.append(
            f"classes are numbered by their names as strings: {shown(first)} is class {classes.index(first)} "
            f"and {shown(later)} is {classes.index(later)}; names of equal length (02, 10) sort as they count"
        )
    alike = defaultdict(list)
    for name in classes:
        alike[unicodedata.normalize("NFC", name).casefold().strip()].append(name)
    pairs = [found for found in alike.values() if len(found) > 1]
    notes += [f"{' and '.join(map(repr, map(shown, found)))} are different classes" for found in pairs[:3]]
    if len(classes) == 1:
        notes.append(f"there is one class alone, {shown(classes[0])}; contrasting classes takes two")
    return notes


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts 2 before 10."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]
