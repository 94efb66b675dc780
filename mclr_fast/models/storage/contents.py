"""The networks in what a pickle holds: under which keys they lie, and what other programs put around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mclr_fast.pickles.reading import is_tensor
from mclr_fast.pickles.values import METADATA

Node = dict[str, Any]
ANCHORS = {  # a tensor that every network of a kind has -> the kind
    "unet.out_conv.weight": "edm2",
    "word_embed.weight": "var",
    "quantize.embedding.weight": "vqvae",
}
WRAPPERS = {"DistributedDataParallel", "DataParallel", "AveragedModel"}  # torch's, by class
SEGMENTS = {  # of names: DDP's and AveragedModel's, torch.compile's, FSDP's, activation checkpointing's
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}
MAX_DEPTH, MAX_ITEMS = 4, 64  # how deep and, in lists, how far networks are looked for
CARRIED = "mclr_fast"  # the key of a state_dict's metadata that this package writes


@dataclass(frozen=True)
class Found:
    """A network.

    Attributes:
        place: the keys (of lists, the numbers) that lead to it, with dots; "" for the file itself.
        kind: "object", or one of ANCHORS' kinds for a state_dict.
        node: the object; of a state_dict its tensors by published names.
        undone: what was around it, in words. said: what a state_dict of this package says of its network.
    """

    place: str
    kind: str
    node: Node
    undone: tuple[str, ...] = ()
    said: dict[str, Any] = field(default_factory=dict)


def networks(holds: Any) -> list[Found]:
    """Every network that the file holds, in its order. ValueError where names are twice the same."""
    return list(_walk(holds, "", 0))


def _walk(node: Any, place: str, depth: int) -> Iterator[Found]:
    if isinstance(node, list):
        node = {str(i): each for i, each in enumerate(node[:MAX_ITEMS])}
    if not isinstance(node, dict) or is_tensor(node) or depth > MAX_DEPTH:
        return
    if node.get("$") == "object":
        bare, undone = unwrapped(node)
        if "_modules" in bare["state"]:
            yield Found(place, "object", bare, undone)
        return
    states = state_dicts(node, place)
    yield from states
    if not states:
        for key, child in node.items():
            yield from _walk(child, f"{place}.{key}" if place else key, depth + 1)


def unwrapped(node: Node) -> tuple[Node, tuple[str, ...]]:
    """(the object inside torch's wrappers, their names)."""
    undone = []
    while node["class"] in WRAPPERS and _inner(node) is not None:
        undone.append(f"{node['class']} around it")
        node = _inner(node)
    return node, tuple(undone)


def _inner(node: Node) -> Node | None:
    inner = (node["state"].get("_modules") or {}).get("module")
    return inner if isinstance(inner, dict) and inner.get("$") == "object" else None


def state_dicts(node: Node, place: str = "") -> list[Found]:
    """The networks among a dictionary's tensors: one for each prefix of the names it is known by."""
    tensors = {name: value for name, value in node.items() if is_tensor(value)}
    said = node.get(METADATA, {}).get(CARRIED) or {}
    found = []
    for name in tensors:
        for anchor, kind in ANCHORS.items():
            if (prefix := _prefix(name, anchor)) is None:
                continue
            inside = {
                key.removeprefix(prefix): each for key, each in tensors.items() if key.startswith(prefix)
            }
            own, undone = _without_segments(inside)
            if prefix:
                undone = [f"{prefix!r} in its names", *undone]
            if left := len(tensors) - len(own):
                undone.append(f"{left} other tensors beside it")
            where = ".".join(filter(None, (place, prefix.rstrip(".") if len(tensors) > len(own) else "")))
            found.append(Found(where, kind, own, tuple(undone), said))
    return found


def _prefix(name: str, anchor: str) -> str | None:
    """What stands before the anchor in a name, whatever wrappers add inside; None if it ends otherwise."""
    parts, wanted = name.split("."), anchor.split(".")
    while parts and wanted:
        part = parts.pop()
        if part == wanted[-1]:
            wanted.pop()
        elif part not in SEGMENTS:
            return None
    return None if wanted else "".join(f"{part}." for part in parts)


def _without_segments(tensors: dict[str, Node]) -> tuple[dict[str, Node], list[str]]:
    """(the tensors by names without what wrappers add, what that was)."""
    bare: dict[str, Node] = {}
    segments: dict[str, None] = {}
    for name, value in tensors.items():
        parts = name.split(".")
        segments |= dict.fromkeys(part for part in parts if part in SEGMENTS)
        short = ".".join(part for part in parts if part not in SEGMENTS)
        if short in bare:
            raise ValueError(f"it has {short!r} twice, with and without {', '.join(segments)}.")
        bare[short] = value
    return bare, [f"'{segment}.' in its names" for segment in segments]


def choose(found: list[Found], part: str | None) -> Found:
    """The network that is meant: the one under `part`, else the only one.

    An object under "ema" goes first, as in EDM2's programs; a VQVAE last.
    Errors    ValueError that names what there is.
    """
    places = ", ".join(repr(each.place) for each in found if each.place)
    if part is not None:
        meant = [each for each in found if f".{each.place}".endswith(f".{part}")]
        if len(meant) != 1:
            none = "several networks" if meant else "no network"
            raise ValueError(
                f"it has {none} under {part!r}, but {f'under {places}' if places else 'one by itself'}."
            )
        return meant[0]
    objects = [each for each in found if each.kind == "object" and each.place == "ema"]
    others = [each for each in found if each.kind != "vqvae"]
    meant = objects or others or found
    if len(meant) > 1:
        raise ValueError(
            f"it holds several networks, under {places}: convert it with --part, which says which one."
        )
    return meant[0]
