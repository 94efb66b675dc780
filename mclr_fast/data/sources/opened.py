"""The tree of files at a path: a folder's, an archive's, or those of a folder of archives or of idx files."""

from __future__ import annotations

import contextlib
import difflib
import os
from pathlib import Path

from .archives import archive_tree, unpacked
from .idx import IdxFile, idx_content, idx_pairs, idx_tree
from .names import DATASET_JSON, is_archive, is_image, parts_of, without_suffix
from .stored import DiskFile, OnDisk, Packed, Piece, Scratch, Stored, Window, ZipPiece
from .tree import Tree


def open_tree(path: Path, scratch: Scratch | None = None) -> Tree:
    """The files at this path. Archives and idx files in it are folders, where nothing else holds images.

    scratch: where what is compressed is unpacked; None: it is refused.
    Errors    FileNotFoundError or ValueError, one line, for what is neither a folder nor an archive, and for
              idx files that do not go together.
    """
    if path.is_dir():
        tree = Tree()
        _walk(tree, path, "", {}, [])
    elif idx_content(path.name) and path.is_file():
        tree = _beside(path)
    elif path.is_file():
        tree = archive_tree(Window(DiskFile(path)), str(path), scratch)
    elif path.exists():
        raise ValueError(f"{path} is neither a file nor a folder")
    elif path.is_symlink():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which is not there")
    else:
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = ", ".join(difflib.get_close_matches(path.name, siblings))
        raise FileNotFoundError(f"no dataset at {path}" + (f"; near it: {near}" if near else ""))
    _open_inner(tree, str(path), scratch)
    return tree


def _beside(path: Path) -> Tree:
    """An idx file of images, and of those beside it the one of its labels."""
    if idx_content(path.name) == "labels":
        raise ValueError(
            f"{path} holds labels alone: name the idx file of their images, which lies beside it"
        )
    tree = Tree()
    labels = [entry.name for entry in path.parent.iterdir() if idx_content(entry.name) == "labels"]
    pair = next(pair for pair in idx_pairs([path.name, *labels]) if pair.images == path.name)
    for name in (path.name, pair.labels):
        if name is not None:
            tree.add(name, OnDisk(path.parent, name))
    return tree


def _walk(
    tree: Tree, root: Path, folder: str, seen: dict[tuple[int, int], str], above: list[tuple[int, int]]
) -> None:
    """Add all that lies in a folder; a link is followed, but not to a folder that holds it.

    seen: folders met so far, by device and number; above: those that hold this one.
    """
    path = root / folder
    stat = os.stat(path)
    identity = (stat.st_dev, stat.st_ino)
    if identity in above:
        tree.loops.append(folder)
        return
    if identity in seen:
        tree.same.append((folder, seen[identity]))
    seen.setdefault(identity, folder)
    tree.add_folder(folder)
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                if not tree.sets_aside(parts_of(name)):
                    _walk(tree, root, name, seen, [*above, identity])
            elif entry.is_file():
                tree.add(name, OnDisk(root, name))
            elif entry.is_symlink():
                tree.add_broken(name, os.readlink(root / name))
            else:
                tree.special.append(name)


def _open_inner(tree: Tree, path: str, scratch: Scratch | None) -> None:
    """Hang the archives of a tree into it, as the folders of their names, unless it holds images itself.

    Likewise its idx files.
    """
    if not any(is_image(name) for name in tree.files):
        _open_idx(tree, path, scratch)
    archives = sorted(name for name in tree.files if is_archive(name))
    if archives and any(is_image(name) for name in tree.files):
        tree.archives = [name for name in archives if not _is_dataset(tree.files[name], name)]
        return
    for name in archives:
        try:
            window = _window(tree.files.pop(name), f"{path}: {name}", scratch)
            inner = archive_tree(window, f"{path}: {name}", scratch)
        except ValueError as error:
            raise ValueError(f"{path} holds no images but in archives, and {error}") from error
        _open_inner(inner, f"{path}: {name}", scratch)
        tree.graft(inner, without_suffix(name))


def _open_idx(tree: Tree, path: str, scratch: Scratch | None) -> None:
    for pair in idx_pairs(tree.files):
        where = f"{path}: {pair.images!r}"
        if pair.labels is None:
            raise ValueError(f"{where} holds images, and the idx file of their labels is not beside it")
        opened = {}
        for what in ("images", "labels"):
            name = getattr(pair, what)
            stored, file = tree.files.pop(name), f"{path}: {name!r}"
            opened[what] = IdxFile(
                unpacked(_window(stored, file, scratch), file, scratch), what, file, stored
            )
        tree.graft(idx_tree(opened["images"], opened["labels"], where), pair.folder)


def _is_dataset(stored: Stored, path: str) -> bool:
    """Whether it is a data set of its own, such as one that was made of the images beside it."""
    with contextlib.suppress(ValueError, OSError):
        return DATASET_JSON in archive_tree(_window(stored, path, None), path, None).files
    return False


def _window(stored: Stored, path: str, scratch: Scratch | None) -> Window:
    """A file in a tree as an archive's."""
    if isinstance(stored, OnDisk):
        return Window(DiskFile(stored.root / stored.relative, keep_open=False))
    if isinstance(stored, Piece):
        return Window(stored.file, stored.offset, stored.size)
    if isinstance(stored, ZipPiece):
        return stored.window()
    if isinstance(stored, Packed) and scratch is not None:
        with stored.archive.open(stored.info) as stream:
            return scratch.unpack(stream)
    raise ValueError(f"{path} is compressed: python -m mclr_fast.prepare makes a data set of it")
