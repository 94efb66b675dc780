"""Images as others keep them: in a folder, a .zip or a .tar; which files are images, and of which class."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from .identity import identity_of
from .labels import Classes, from_folders, from_json
from .layout import PREPARE, Reading, find_root
from .names import DATASET_JSON, IMAGE_KINDS, is_image, kind_of, shown, some
from .opened import open_tree
from .stored import Scratch, Stored

__all__ = ["Classes", "Reading", "Scratch", "Source"]
MOST_LOOKED_INTO = 64  # files whose names say nothing
QUIET = ("dataset.json", "readme", "license", "licence")  # beside images as a matter of course


class Source:
    """The images at a path, by name and sorted as strings; the one place that says what is an image.

    What is hidden or another program's is left aside, and a single folder around all the others is not
    counted; `notes` say so.

    Attributes: names, of the images. Errors: ValueError or FileNotFoundError: no source, or no images in it.
    """

    def __init__(self, path: Path, reading: Reading | None = None, scratch: Scratch | None = None):
        self.path, self.reading = path, reading or Reading()
        tree = open_tree(path, scratch)
        self.root = root = find_root(str(path), tree, self.reading)
        self._files: dict[str, Stored] = tree.files
        if root:
            self._files = {n[len(root) :]: file for n, file in tree.files.items() if n.startswith(root)}
        self.names: list[str] = []
        self._others: list[str] = []
        for name in sorted(self._files):
            (self.names if is_image(name) else self._others).append(name)
        self._folders = {f[len(root) :] for f in tree.folders if f.startswith(root)} - {""}
        self._tree = tree
        if not self.names:
            raise ValueError(f"{path} holds no images; expected .png or .npy files in it{self._why_none()}")

    def view(self, name: str) -> bytes:
        """An image's bytes; an archive's checksum is not looked at."""
        return self._files[name].view()

    def read(self, name: str) -> bytes:
        """An image's bytes. ValueError if they are not what was stored."""
        return self._files[name].read()

    def expect(self, names: Iterable[str]) -> None:
        """These are read next: the disk may begin."""
        for name in names:
            self._files[name].expect()

    @cached_property
    def classes(self) -> Classes:
        """ValueError, one line: no labels, or labels that do not fit."""
        self._check()
        named = (str(self.path), self.root)
        if DATASET_JSON in self._files and self.reading.class_level is None:
            return from_json(*named, self._files[DATASET_JSON].read(), self.names, self._others)
        return from_folders(*named, self.names, self._others, self._folders, self.reading)

    @property
    def fingerprint(self) -> str:
        """Of names, and of an archive's checksums or the files' sizes and times: reading all takes hours."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name} {self._files[name].stamp()}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """As `identity.identity_of`."""
        try:
            labels = self.classes.labels
        except ValueError:  # unlabelled images may be judged
            labels = None
        return identity_of(self.names, self._files, labels)

    @cached_property
    def notes(self) -> list[str]:
        """What was left aside, and how the rest was read, where that may not be what was meant; in lines."""
        tree, notes = self._tree, list(self._tree.notes)
        if self.root and self.reading.within is None:
            level = self.root.count("/")
            other = f" ({PREPARE} --class-level {level} takes it for a class)"
            in_json = DATASET_JSON in self._files
            notes.append(f"{shown(self.root)} holds everything, so it is no class{'' if in_json else other}")
        if tree.aside:
            notes.append(f"left aside, hidden or another program's: {some(list(tree.aside))}")
        others = [name for name in self._others if not posixpath.basename(name).lower().startswith(QUIET)]
        if others:
            notes.append(
                f"left aside, no images by their suffix: {some(others)}{self._images_by_content(others)}"
            )
        if tree.replaced:
            notes.append(f"there twice, of which the last counts, as in any tar: {some(tree.replaced)}")
        if tree.loops:
            notes.append(f"links not followed, since they lead back: {some(tree.loops)}")
        if tree.special:
            notes.append(f"left aside, neither files nor folders: {some(tree.special)}")
        return notes

    def _check(self) -> None:
        """ValueError for what would give images wrong labels, or twice."""
        twice = [n for n in self._tree.twice if n.startswith(self.root) and not self._is_other(n)]
        if twice:
            raise ValueError(
                f"{self.path} holds {twice[0]!r} twice ({len(twice)} such name(s)); which one is meant does "
                "not show: make the archive again"
            )
        broken = [(n, to) for n, to in self._tree.broken if not is_image(n) and n.startswith(self.root)]
        if broken:
            raise ValueError(
                f"{self.path}: {broken[0][0]!r} is a link to {broken[0][1]!r}, which is not there "
                f"({len(broken)} such link(s)): bring that back, or remove the link"
            )
        for link, folder in self._tree.same:
            if all(self._holds_images(name) for name in (link, folder)):
                raise ValueError(
                    f"{self.path}: {link!r} and {folder!r} are the same folder, since one is a link: its "
                    f"images would count twice; remove the link, or choose ({PREPARE} --within)"
                )
        archives = [name for name in self._tree.archives if name.startswith(self.root)]
        if archives:
            raise ValueError(
                f"{self.path} holds images, and archives beside them: {some(archives)}; unpack those, or "
                "move them elsewhere"
            )
        inner = [n for n in self._others if posixpath.basename(n) == DATASET_JSON and n != DATASET_JSON]
        if inner and DATASET_JSON not in self._files and self.reading.class_level is None:
            self._check_several([posixpath.dirname(self.root + name) for name in inner])
            folder = posixpath.dirname(self.root + inner[0])
            raise ValueError(
                f"{self.path} holds a dataset.json in {folder!r}, not at its top, and images elsewhere too: "
                f"for those of that folder, {PREPARE} --within {folder}; else remove it"
            )

    def _check_several(self, folders: list[str]) -> None:
        """ValueError where all images lie in several data sets, as those of MNIST's two parts do."""
        inside = [f"{self.root}{name}".startswith(tuple(f"{f}/" for f in folders)) for name in self.names]
        if len(folders) > 1 and all(inside):
            readings = " or ".join(f"--within {shown(folder)}" for folder in folders)
            raise ValueError(
                f"{self.path} holds several data sets, {some(folders)}. Say to {PREPARE} which is meant: "
                f"{readings}"
            )

    def _is_other(self, name: str) -> bool:
        return not is_image(name) and posixpath.basename(name) != DATASET_JSON

    def _holds_images(self, folder: str) -> bool:
        return any(f"{self.root}{name}".startswith(f"{folder}/") for name in self.names)

    def _images_by_content(self, others: list[str]) -> str:
        """Which of these are images all the same, in words."""
        found = []
        for name in others[:MOST_LOOKED_INTO]:
            try:
                kind = kind_of(self._files[name].beginning())
            except Exception:  # as with any damaged file
                continue
            if kind in IMAGE_KINDS:
                found.append(f"{name} is {kind}")
        return f" (but {some(found)} by content: name it so)" if found else ""

    def _why_none(self) -> str:
        notes = self.notes
        return f" ({'; '.join(notes)})" if notes else ""
