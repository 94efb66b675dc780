"""Which folder of a source its images lie in, and which folders are its classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .names import DATASET_JSON, is_image, parts_of, shown, some
from .tree import Tree

SPLITS = frozenset(
    (
        *("train", "training", "trainval", "val", "valid", "validation", "test", "testing"),
        *("dev", "eval", "evaluation", "holdout", "heldout"),
    )
)
PREPARE = "python -m mclr_fast.prepare"


@dataclass(frozen=True)
class Reading:
    """How a source is read, where it does not show.

    within: this folder of it alone. class_level: the folders of this depth are the classes, 1 = the
    outermost; None: found out, and a single folder around all of them does not count.
    """

    within: str | None = None
    class_level: int | None = None


def find_root(path: str, tree: Tree, reading: Reading) -> str:
    """The folder that names count from: "" or "pets/". ValueError for a folder that is not there."""
    root = ""
    if reading.within is not None:
        root = "/".join(parts_of(reading.within)) + "/"
        if root != "/" and root[:-1] not in tree.folders:
            tops = sorted({name.split("/")[0] for name in tree.folders})
            raise ValueError(f"{path} holds no folder {reading.within!r}; it holds {some(tops, 8) or 'none'}")
        root = root if root != "/" else ""
    if reading.class_level is not None:
        return root
    if f"{root}{DATASET_JSON}" in tree.files:
        return root
    images = [name for name in tree.files if name.startswith(root) and is_image(name)]
    while (inner := _only_folder(tree, images, root)) is not None:
        root = inner
    return root


def _only_folder(tree: Tree, images: Sequence[str], root: str) -> str | None:
    """The folder that holds all the others, where there is one: no class, but what they came in."""
    if f"{root}{DATASET_JSON}" in tree.files or not images:
        return None
    depth = root.count("/")
    tops = {name.split("/")[depth] for name in tree.folders if name.startswith(root)}
    if len(tops) != 1 or any(name.count("/") == depth for name in images):
        return None
    inner = f"{root}{tops.pop()}/"
    deeper = any(name.count("/") > depth + 1 for name in images)
    return inner if deeper or f"{inner}{DATASET_JSON}" in tree.files else None


def check_layout(path: str, root: str, names: Sequence[str], reading: Reading) -> list[str]:
    """Refuse folders that can be read in two ways -> what is to be said of others.

    names: of images, from `root` on; reading: its class_level is None.
    Errors    ValueError for parts of a data set (train, val) in the place of classes: both readings, and the
              option for each.
    """
    level = root.count("/") - len(parts_of(reading.within or "")) + 1  # that the outermost folders have
    inner: dict[str, set[str]] = defaultdict(set)  # of each top folder, the folders in it that hold images
    direct = set()  # top folders with images of their own
    for name in names:
        top, *rest = name.split("/")
        if len(rest) > 1:
            inner[top].add(rest[0])
        else:
            direct.add(top)
    tops = sorted(inner.keys() | direct)
    shared = _shared(inner)
    if _are_parts(tops, inner) or (len(tops) > 1 and not direct and len(shared) > 1):
        raise ValueError(_two_readings(path, root, level, tops, inner))
    if inner and not direct and all(len(found) > 1 for found in inner.values()):
        example = min(inner)
        return [
            f"the {len(tops):,} outermost folders are the classes; each holds folders ({shown(example)}: "
            f"{some(sorted(inner[example]))}): {PREPARE} --class-level {level + 1} takes those"
        ]
    return []


def _are_parts(tops: Sequence[str], inner: dict[str, set[str]]) -> bool:
    """Whether names say so: all of them, or two exactly, or one whose folders would be the classes."""
    words = [{*re.findall(r"[a-z]+", top.lower())} & SPLITS for top in tops]
    exact = [top for top in tops if top.lower() in SPLITS]
    all_named = all(words) and len(set().union(*words)) > 1
    one_holds_classes = len(tops) > 1 and any(len(inner.get(top, ())) > 1 for top in exact)
    return all_named or len(exact) > 1 or one_holds_classes


def _shared(inner: dict[str, set[str]]) -> set[str]:
    """Names of folders that lie in several of them."""
    seen, shared = set(), set()
    for found in inner.values():
        shared |= seen & found
        seen |= found
    return shared


def _two_readings(path: str, root: str, level: int, tops: Sequence[str], inner: dict[str, set[str]]) -> str:
    part = next((top for top in tops if "train" in top.lower()), tops[0])
    below = sorted(inner.get(part, ())) or sorted(set().union(*inner.values()))
    named = shown(f"{root}{part}")
    readings = [f"for one part alone, which then needs a dataset.json: --within {named}"]
    if below:
        readings = [
            f"for the classes {some(below)} of one part alone: --within {named}",
            f"of all of them together: --class-level {level + 1}",
        ]
    readings.append(f"for the classes {some(tops)}: --class-level {level}")
    holds = f", with {some(below)} in them" if below else ""
    return (
        f"{path}: the folders {some(tops)}{holds} can be parts of one data set, or its classes. Say which to "
        f"{PREPARE}: {'; '.join(readings)}"
    )
