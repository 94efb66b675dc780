"""Arguments of a network as a command line has them: NAME=VALUE, checked against what its family takes."""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .family import Arguments, Family

NONE = ("none", "None")
WORDS = {"true": True, "True": True, "false": False, "False": False}


def takes(
    constructor: Callable[..., Any],
    without: Collection[str],
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> Mapping[str, Any]:
    """Name -> type of a constructor's arguments, but for those that a run sets; beside: more of them."""
    hints = typing.get_type_hints(constructor.__init__)
    names = [name for name in inspect.signature(constructor).parameters if name not in without]
    return MappingProxyType({**{name: hints[name] for name in names}, **beside})


def parse_arguments(texts: Sequence[str], family: Family) -> Arguments:
    """["model_channels=32", "channel_mult=1,2,2"] -> {"model_channels": 32, "channel_mult": [1, 2, 2]}.

    Errors    ValueError, one line, for what is no NAME=VALUE, a name that the family's networks do not have
              (with the nearest), a name given twice, and a value of another type.
    """
    found: Arguments = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--net {text} is no NAME=VALUE, such as {_example(family.takes)}.")
        if name not in family.takes:
            raise ValueError(
                f"--net {text}: the network has no option {name!r}; {_nearest(name, family.takes)}."
            )
        if name in found:
            raise ValueError(f"--net says {name} twice: {found[name]!r} and {value}.")
        found[name] = _value(text, value, family.takes[name])
    return found


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"nearest: {', '.join(nearest)}" if nearest else f"it has {', '.join(known) or 'none'}"


def _example(known: Mapping[str, Any]) -> str:
    return f"{next((name for name, kind in known.items() if kind is int), 'width')}=32"


def _value(text: str, value: str, kind: Any) -> Any:
    """The value as a constructor takes it: of a union the first type that serves."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    for each in kinds:
        if each is type(None):
            if value in NONE:
                return None
            continue
        try:
            return _of(each, value)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"--net {text}: {value or 'nothing'} is no {' or '.join(map(_word, kinds))}.")


def _of(kind: Any, value: str) -> Any:
    if typing.get_origin(kind) is not None:  # a sequence: 1,2,2 or [1, 2, 2]; nothing is an empty one
        (item,) = typing.get_args(kind)
        parts = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
        return [_of(item, part) for part in parts]
    if kind is bool:
        return WORDS[value]
    if kind is float and not math.isfinite(float(value)):
        raise ValueError(value)
    if kind is int and int(value) < 0:
        raise ValueError(value)
    return kind(value)


def _word(kind: Any) -> str:
    if kind is type(None):
        return "none"
    if typing.get_origin(kind) is not None:
        return "list of whole numbers, like 1,2,2"
    return {int: "whole number from 0 on", float: "number", bool: "true or false"}.get(kind, "word")
