"""MNIST's idx files, of images and of their labels, as a folder of grey images with a dataset.json."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from .names import DATASET_JSON, kind_of
from .stored import BEGINNING, Stored, Window
from .tree import Tree

NAME = re.compile(r"(.*?)[-_.]?(images|labels)[-.]idx[13]-ubyte(\.gz)?", re.IGNORECASE)
BYTES = 0x08  # the type of an element: unsigned, of 8 bits
DIMENSIONS = {"images": 3, "labels": 1}
NUMBER = 4  # bytes of the magic number and of each length, the highest first


class Pair(NamedTuple):
    """A file of images, that of its labels, None where there is none, and the folder that they become."""

    folder: str
    images: str
    labels: str | None


def idx_pairs(names: Iterable[str]) -> list[Pair]:
    """The files of images among these, sorted; "raw/train-images-idx3-ubyte.gz" becomes the folder raw/train.

    Of one that is there packed and unpacked, as torchvision leaves them, the unpacked one is taken.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in sorted(names):  # "x" comes before "x.gz"
        parent, slash, own = name.rpartition("/")
        if match := NAME.fullmatch(own):
            prefix, what, _ = match.groups()
            found[f"{parent}{slash}{prefix or 'images'}"].setdefault(what.lower(), name)
    return [
        Pair(folder, files["images"], files.get("labels"))
        for folder, files in sorted(found.items())
        if "images" in files
    ]


def idx_content(name: str) -> str | None:
    """What a file's name says is in it: "images" or "labels"; None for a name that is no idx file's."""
    match = NAME.fullmatch(name)
    return match and match[2].lower()


class IdxFile:
    """A file of bytes in one or three dimensions.

    Attributes: shape, its lengths; stamp, time: of the file as it lies there, packed or not.
    """

    def __init__(self, window: Window, what: str, path: str, origin: Stored):
        """window: unpacked; what: "images" or "labels"; path: as messages have it; origin: as it lies there.

        Errors    ValueError, one line, for a file that is none, or is shorter or longer than it says.
        """
        self.window, self.stamp, self.time = window, origin.stamp(), origin.measure()[1]
        window.seek(0)
        rank = DIMENSIONS[what]
        beginning = window.read(BEGINNING)
        header, magic = beginning[: NUMBER * (1 + rank)], bytes([0, 0, BYTES, rank])
        if not header.startswith(magic):
            is_what = f", but is {kind}" if (kind := kind_of(beginning)) else ""
            raise ValueError(
                f"{path} begins with {header[:NUMBER].hex() or 'nothing'}, and idx {what} begin with "
                f"{magic.hex()}{is_what}"
            )
        lengths = range(NUMBER, len(header), NUMBER)
        self.shape = tuple(int.from_bytes(header[at : at + NUMBER], "big") for at in lengths)
        self.start = NUMBER * (1 + rank)
        size = self.start + math.prod(self.shape)
        if len(header) < self.start or window.size != size:
            how = "was cut short" if window.size < size else "is longer than it says"
            raise ValueError(
                f"{path} {how}: {'x'.join(map(str, self.shape))} bytes and a header of {self.start} are "
                f"{size:,}, and there are {window.size:,}"
            )

    def read(self, size: int, at: int) -> bytes:
        """Bytes from a place after the header on. ValueError where the file has become shorter."""
        data = self.window.file.pread(size, self.window.offset + self.start + at)
        if len(data) < size:
            raise ValueError("the idx file ends there")
        return data


class IdxImage:
    """One image, as a PGM file: pixels behind a line that says how many."""

    __slots__ = ("images", "index")
    checksum = None

    def __init__(self, images: IdxFile, index: int):
        self.images, self.index = images, index

    def view(self) -> bytes:
        """As `Stored.view`."""
        _, height, width = self.images.shape
        return self._header + self.images.read(height * width, self.index * height * width)

    read = view

    def beginning(self) -> bytes:
        """As `Stored.beginning`."""
        return self.view()[:BEGINNING]

    def expect(self) -> None:
        """Images lie one behind the other: the system reads ahead."""

    def stamp(self) -> str:
        """Its place in a file of that time."""
        return f"{self.index} {self.images.stamp}"

    def measure(self) -> tuple[int, int]:
        """As `Stored.measure`."""
        _, height, width = self.images.shape
        return len(self._header) + height * width, self.images.time

    @property
    def _header(self) -> bytes:
        _, height, width = self.images.shape
        return b"P5 %d %d 255\n" % (width, height)


class Held:
    """A file that is nowhere but here."""

    __slots__ = ("data",)
    checksum = None

    def __init__(self, data: bytes):
        self.data = data

    def view(self) -> bytes:
        """The bytes."""
        return self.data

    read = beginning = view

    def expect(self) -> None:
        """It is there."""

    def stamp(self) -> str:
        """The bytes are made of what has stamps of its own."""
        return "-"

    def measure(self) -> tuple[int, int]:
        """As `Stored.measure`."""
        return len(self.data), 0


def idx_tree(images: IdxFile, labels: IdxFile, path: str) -> Tree:
    """img00000000.pgm and so on, in the file's order, and a dataset.json with their labels as they are.

    path: of the images, as messages have it. ValueError, one line, for other numbers of images and labels.
    """
    (num_images, height, width), (num_labels,) = images.shape, labels.shape
    if num_images != num_labels:
        raise ValueError(f"{path} holds {num_images:,} images, and the labels beside it are {num_labels:,}")
    if 0 in images.shape:
        raise ValueError(f"{path} holds no pixels: {num_images} images of {height}x{width}")
    tree = Tree()
    names = [f"img{index:08d}.pgm" for index in range(num_images)]
    for index, name in enumerate(names):
        tree.add(name, IdxImage(images, index))
    pairs = [list(pair) for pair in zip(names, labels.read(num_labels, 0), strict=True)]
    tree.add(DATASET_JSON, Held(json.dumps({"labels": pairs}).encode()))
    return tree
