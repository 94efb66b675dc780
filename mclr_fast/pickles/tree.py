"""A value read from a pickle as JSON, which is all that leaves the reading process.

Tensors, and arrays, are {"$": "tensor", "dtype", "shape", "stride", "start", "nbytes"}, where they are in the
file; objects are {"$": "object", "class", "state"}. Tuples and sets become lists, keys of dictionaries text.
"""

from __future__ import annotations

from typing import Any

from .values import Array, Object, RefusedError, Storage, Tensor

MAX_NODES = 250_000
MAX_DEPTH = 64
MAX_TEXT = 4096


def to_json(value: Any) -> Any:
    """The value, without what JSON cannot say. RefusedError where it is too deep or too large."""
    nodes = 0

    def convert(value: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise RefusedError(f"it is nested deeper than {MAX_DEPTH} or holds over {MAX_NODES:,} values.")
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if abs(value) < 1 << 63 else None
        if isinstance(value, str):
            return value[:MAX_TEXT]
        if isinstance(value, list | tuple | set):
            return [convert(item, depth + 1) for item in value]
        if isinstance(value, dict):
            if "$" in value:
                raise RefusedError("it has a key '$', which no saved model has.")
            return {str(key): convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Object):
            state = convert(value.state, depth + 1)
            return {"$": "object", "class": value.class_name[:MAX_TEXT], "state": state}
        if isinstance(value, Array):
            return convert(value.tensor, depth)
        if isinstance(value, Tensor):
            return _tensor(value, value.storage)
        return None  # a name or bytes that nothing was made of

    return convert(value, 0)


def _tensor(tensor: Tensor, storage: Storage) -> dict[str, Any]:
    if storage.start < 0:
        raise RefusedError("it holds a tensor whose data are missing.")
    sizes = list(zip(tensor.shape, tensor.stride, strict=True))
    extent = sum((n - 1) * s for n, s in sizes) + 1 if all(tensor.shape) else 0
    return {
        "$": "tensor",
        "dtype": storage.dtype,
        "shape": list(tensor.shape),
        "stride": list(tensor.stride),
        "start": storage.start + tensor.offset * storage.itemsize,
        "nbytes": extent * storage.itemsize,
    }
