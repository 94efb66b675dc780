"""What the machine makes of a pickle's calls: a function here for each known name, and none called itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import values
from .arrays import array, number, tensor
from .values import Array, Bytes, DType, Global, Inert, Object, RefusedError, Tensor, check

if TYPE_CHECKING:
    from .machine import Machine

MAX_NUMBER = 16  # bytes of a numpy scalar


def _ordered_dict(_: Machine, pairs: Any = ()) -> dict:
    value: dict = {}
    for pair in check(pairs, (list, tuple)):
        key, item = check(pair, (list, tuple))
        value[check(key, (str, int))] = item
    return value


def _persistent_object(_: Machine, meta: Any) -> Object:
    meta = check(meta, dict)
    return Object(check(meta["class_name"], str), check(meta["state"], dict))


def _tensor(_: Machine, storage: Any, offset: Any, shape: Any, stride: Any, *_unused: Any) -> Tensor:
    return tensor(storage, offset, shape, stride)


def _parameter(_: Machine, data: Any, *_unused: Any) -> Tensor:
    return check(data, Tensor)


def _tensor_with_state(machine: Machine, function: Any, _: Any, arguments: Any, *_unused: Any) -> Tensor:
    if check(function, Global).name != values.REBUILD_TENSOR:
        raise RefusedError(f"it makes a tensor by {function.name}.")
    return _tensor(machine, *check(arguments, tuple))


def _new_array(_: Machine, *_unused: Any) -> Array:
    return Array()


def _array_of_buffer(_: Machine, data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return array(shape, dtype, order == "F", data)


def _scalar(machine: Machine, dtype: Any, data: Any = None) -> int | float | bool | None:
    return number(dtype, machine.content(check(data, Bytes), MAX_NUMBER)) if data is not None else None


def _encode(_: Machine, text: Any, encoding: Any) -> Bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"it encodes a text as {str(encoding)[:20]!r}; pickles of protocol 2 say latin1.")
    data = check(text, str).encode("latin-1")
    return Bytes(0, len(data), data)


def _set(_: Machine, items: Any = ()) -> set:
    return {check(item, (str, int)) for item in check(items, (list, tuple))}


def _size(_: Machine, sizes: Any = ()) -> tuple:
    return tuple(check(sizes, (list, tuple)))


CALLS: dict[str, Callable[..., Any]] = {
    values.ORDERED_DICT: _ordered_dict,
    values.PERSISTENT_OBJECT: _persistent_object,
    values.REBUILD_TENSOR: _tensor,
    values.REBUILD_PARAMETER: _parameter,
    values.REBUILD_PARAMETER_WITH_STATE: _parameter,
    values.REBUILD_WITH_STATE: _tensor_with_state,
    values.LOAD_STORAGE: lambda machine, saved: machine.load_storage(check(saved, Bytes)),
    values.NUMPY_DTYPE: lambda machine, name, *_: DType(check(name, str)),
    values.ENCODE: _encode,
    values.EMPTY_BYTES: lambda machine: Bytes(0, 0, b""),
    values.DEVICE: lambda machine, *parts: ":".join(str(check(part, (str, int))) for part in parts),
    values.SIZE: _size,
    **dict.fromkeys(values.REBUILD_ARRAY, _new_array),
    **dict.fromkeys(values.ARRAY_OF_BUFFER, _array_of_buffer),
    **dict.fromkeys(values.NUMPY_SCALAR, _scalar),
    **dict.fromkeys(values.SETS, _set),
    **dict.fromkeys(values.PATHS, lambda machine, *parts: "/".join(check(part, str) for part in parts)),
}
INSTANCES = values.CONTAINERS | values.WRAPPERS | values.LOSSES | {values.NAMESPACE}
INERT = values.WRAPPERS_SETTINGS | {values.MODULE_HOOK}


def new_object(name: Global, arguments: tuple) -> dict | Object | Inert:
    """What a class makes without a call of its constructor: one of its dictionaries, or an object."""
    if arguments == () and name.name in values.DICTIONARIES:
        return {}
    if name.name in values.OWN_MODULES:
        return Object(name.name)  # whole, for their classes are named as EDM2's
    if name.name in INSTANCES:
        return Object(name.name.rpartition(".")[2])
    if name.name in INERT:
        return Inert()
    raise RefusedError(f"it makes an object of {name.name} with {len(arguments)} arguments.")
