"""The files of a folder or archive by name: one tree, whatever they lie in and however they are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .names import is_foreign, parts_of
from .stored import Stored, Unreadable

MOST_LINKS = 40  # on the way to one file, as systems have it


class Tree:
    """Attributes: files by name ("a/b.png"), folders, and what there is to be said of the rest.

    Foreign names are set aside, and names written otherwise (./a, a\\b) are brought to one form.

    Attributes:
        aside: what is hidden or another program's. twice: names that came twice; where later files replace
            earlier ones, as in a tar, `replaced` has them.
        loops: links to a folder that holds them. broken: links to nothing, and where they lead.
        same: links to a folder of the tree, and that folder. special: what is neither file nor folder.
        archives: those beside images that are no data sets. notes: what else is to be said, in words.
    """

    def __init__(self, later_wins: bool = False) -> None:
        self.files: dict[str, Stored] = {}
        self.folders: set[str] = set()
        self.aside: dict[str, None] = {}
        self.twice: list[str] = []
        self.replaced: list[str] = []
        self.loops: list[str] = []
        self.broken: list[tuple[str, str]] = []
        self.same: list[tuple[str, str]] = []
        self.special: list[str] = []
        self.archives: list[str] = []
        self.notes: list[str] = []
        self._again = self.replaced if later_wins else self.twice
        self._links: dict[str, str] = {}
        self._hidden: dict[str, Stored] = {}  # links may lead there

    def add(self, name: str, stored: Stored) -> None:
        """A file."""
        folder, _, own = name.rpartition("/")
        if folder in self.folders and own and "\\" not in own and not is_foreign(own):
            tidy = name  # as nearly all are, and there may be millions
        else:
            parts = parts_of(name)
            tidy = "/".join(parts)
            if self.sets_aside(parts):
                self._hidden[tidy] = stored
                return
            self._add_folders(parts[:-1])
        if tidy in self.files or self._links.pop(tidy, None):
            self._again.append(tidy)
        self.files[tidy] = stored

    def add_folder(self, name: str) -> None:
        """A folder, perhaps an empty one."""
        parts = parts_of(name)
        if not self.sets_aside(parts):
            self._add_folders(parts)

    def add_link(self, name: str, target: str) -> None:
        """Another name, from the root of the tree, for a file or a folder in it."""
        parts = parts_of(name)
        tidy = "/".join(parts)
        if self.sets_aside(parts):
            return
        if self.files.pop(tidy, None) or tidy in self._links:
            self._again.append(tidy)
        self._links[tidy] = "/".join(parts_of(target))
        self._add_folders(parts[:-1])

    def add_broken(self, name: str, target: str) -> None:
        """A link to nothing."""
        if not self.sets_aside(parts_of(name)):
            self.broken.append((name, target))
            self.files[name] = Unreadable(f"it is a link to {target!r}, which is not there")

    def graft(self, inner: Tree, folder: str) -> None:
        """Hang another tree into a folder of this one."""
        self.add_folder(folder)
        if folder not in self.folders:  # a foreign one
            return
        for name, stored in inner.files.items():
            full = f"{folder}/{name}"
            if full in self.files:
                self._again.append(full)
            self.files[full] = stored
        self.folders.update(f"{folder}/{name}" for name in inner.folders)
        self.aside |= dict.fromkeys(f"{folder}/{name}" for name in inner.aside)
        for mine, other in (
            (self.twice, inner.twice),
            (self.replaced, inner.replaced),
            (self.loops, inner.loops),
            (self.special, inner.special),
        ):
            mine += [f"{folder}/{name}" for name in other]
        self.notes += inner.notes
        self.broken += [(f"{folder}/{name}", target) for name, target in inner.broken]
        self.same += [(f"{folder}/{name}", f"{folder}/{other}") for name, other in inner.same]

    def sets_aside(self, parts: list[str]) -> bool:
        """Whether a name is hidden or another program's; if so it is kept in `aside`."""
        for i, part in enumerate(parts):
            if is_foreign(part):
                self.aside["/".join(parts[: i + 1])] = None
                return True
        return False

    def follow_links(self) -> None:
        """Every link becomes what it leads to; called once all is added."""
        if not self._links:
            return
        folders = {}
        for link in sorted(self._links):
            target = self._canonical(link)
            found = self.files.get(target) or self._hidden.get(target)
            if found is not None:
                self.files[link] = found
            elif target in self.folders:
                folders[link] = target
            else:
                self.add_broken(link, self._links[link])
        children = self._children() if folders else {}
        for link, target in folders.items():
            if f"{link}/".startswith(f"{target}/"):
                self.loops.append(link)
                continue
            self.same.append((link, target))
            self.add_folder(link)
            for rest, stored in list(_below(target, children, folders, frozenset([link]))):
                self.add(f"{link}/{rest}", stored)

    def _canonical(self, name: str) -> str:
        """The name once no part of it is a link."""
        for _ in range(MOST_LINKS):
            parts = name.split("/")
            heads = ("/".join(parts[:i]) for i in range(1, len(parts) + 1))
            head = next((head for head in heads if head in self._links), None)
            if head is None:
                return name
            name = "/".join(parts_of(self._links[head] + name[len(head) :]))
        return ""

    def _children(self) -> dict[str, list[tuple[str, Stored | None]]]:
        children: dict[str, list[tuple[str, Stored | None]]] = defaultdict(list)
        for name, stored in self.files.items():
            parent, _, own = name.rpartition("/")
            children[parent].append((own, stored))
        for name in self.folders:
            parent, _, own = name.rpartition("/")
            children[parent].append((own, None))
        return children

    def _add_folders(self, parts: list[str]) -> None:
        folder = "/".join(parts)
        while folder and folder not in self.folders:
            self.folders.add(folder)
            folder = folder.rpartition("/")[0]


def _below(
    folder: str,
    children: dict[str, list[tuple[str, Stored | None]]],
    links: dict[str, str],
    above: frozenset[str],
) -> Iterator[tuple[str, Stored]]:
    """Names from a folder on, and files, of all that lies in it; no link is followed in a circle."""
    if folder in above:
        return
    above = above | {folder}
    for own, stored in children.get(folder, ()):
        if stored is not None:
            yield own, stored
            continue
        for rest, inner in _below(f"{folder}/{own}", children, links, above):
            yield f"{own}/{rest}", inner
    for link, target in links.items():
        if link.rpartition("/")[0] == folder:
            for rest, inner in _below(target, children, links, above):
                yield f"{link.rpartition('/')[2]}/{rest}", inner
