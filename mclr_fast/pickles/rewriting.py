"""A snapshot written again with other values in its tensors, as float32; all else stays byte for byte."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .machine import operations
from .reading import DTYPES
from .reading import tensor as read_tensor
from .values import Bytes, Window

BINBYTES, BINBYTES8, FRAME = b"B", b"\x8e", b"\x95"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Span:
    """A part of a pickle: where its opcode is, and its content."""

    is_frame: bool
    place: int
    start: int
    end: int


def rewrite(
    source: Path, target: Path, nodes: Mapping[str, dict[str, Any]], values: Mapping[str, Tensor]
) -> None:
    """Write `source`, a plain pickle that `reading.read` took, to `target` with its tensors as float32.

    Every storage that the nodes are views of becomes a float32 one with the values in it, made when its
    turn comes, so that one at a time is in memory; the lengths of the frames around them follow.

    Args: nodes: what `reading.read` gave, by name, no two of which share elements; values: of their shapes.
    Errors    ValueError where the file does not have its tensors' data as bytes of their own.
    """
    views: dict[int, list[str]] = {}
    for name, node in nodes.items():
        if "data" in node:
            raise ValueError("its weights are text (pickle protocol 2): write it with protocol 3 or later.")
        views.setdefault(node["storage"][0], []).append(name)

    with open(source, "rb") as old, open(target, "wb") as new:
        size = old.seek(0, 2)
        spans = _spans(Window(old, 0, size))
        makers: dict[int, Callable[[], bytes]] = {}
        for span in spans:
            held = [] if span.is_frame else [start for start in views if span.start <= start < span.end]
            for start in held:
                names = views.pop(start)
                makers[span.place] = lambda names=names: _content(source, names, nodes, values)
        if views:
            raise ValueError("its weights are no bytes of their own: give a snapshot of EDM2's loop.")
        _copy(old, new, size, spans, makers)


def _spans(window: Window) -> list[Span]:
    spans, place = [], 0
    for name, argument in operations(window):
        if isinstance(argument, Bytes):
            spans.append(Span(False, place, argument.start, argument.end))
        elif name == "FRAME":
            spans.append(Span(True, place, window.position, window.position + argument))
        place = window.position
    return spans


def _content(
    source: Path, names: list[str], nodes: Mapping[str, dict[str, Any]], values: Mapping[str, Tensor]
) -> bytes:
    """The opcode, length and bytes of one storage, as torch pickles it."""
    first = nodes[names[0]]
    start, numel = first["storage"]
    itemsize = DTYPES[first["dtype"]].itemsize
    whole = {**first, "start": start, "shape": [numel], "stride": [1], "nbytes": numel * itemsize}
    elements = read_tensor(source, whole).to(torch.float32, copy=True)
    for name in names:
        node = nodes[name]
        view = elements.as_strided(node["shape"], node["stride"], (node["start"] - start) // itemsize)
        view.copy_(values[name])
    file = io.BytesIO()
    torch.save(elements._typed_storage(), file, _use_new_zipfile_serialization=False)
    content = file.getvalue()
    if len(content) < 1 << 32:
        return BINBYTES + struct.pack("<I", len(content)) + content
    return BINBYTES8 + struct.pack("<Q", len(content)) + content


def _copy(
    old: BinaryIO, new: BinaryIO, size: int, spans: list[Span], makers: Mapping[int, Callable[[], bytes]]
) -> None:
    """All of `old`, with what a maker makes in place of the bytes value at its place."""
    made: dict[int, bytes] = {}  # those inside frames, which are small: a frame's length comes before them
    done = 0
    for span in spans:
        if span.is_frame:
            inside = [s for s in spans if s.place in makers and span.start <= s.place < span.end]
            made |= {each.place: makers[each.place]() for each in inside}
            grown = sum(len(made[each.place]) - (each.end - each.place) for each in inside)
            content = FRAME + struct.pack("<Q", span.end - span.start + grown)
        elif span.place in makers:
            content = made.pop(span.place, None) or makers[span.place]()
        else:
            continue
        _copy_bytes(old, new, done, span.place)
        new.write(content)
        done = span.start if span.is_frame else span.end
    _copy_bytes(old, new, done, size)


def _copy_bytes(old: BinaryIO, new: BinaryIO, start: int, end: int) -> None:
    old.seek(start)
    while start < end:
        block = old.read(min(BLOCK, end - start))
        if not block:
            raise ValueError("the template became shorter while it was read.")
        new.write(block)
        start += len(block)
