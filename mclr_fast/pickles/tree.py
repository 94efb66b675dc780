"""A value read from a pickle as JSON, which is all that leaves the reading process.

Tensors, and arrays, are {"$": "tensor", "dtype", "shape", "stride", "start", "nbytes", "storage"}: where they
are in the file, and the first byte and number of elements of the storage that they are views of; with their
bytes themselves in "data", base64, where the file has them as text. Objects are {"$": "object", "class",
"state"}; "$metadata" of a dictionary is what it says of itself. Tuples and sets become lists, keys text.
"""

from __future__ import annotations

import base64
from typing import Any

from .values import Array, Object, RefusedError, Storage, Tensor

MAX_NODES = 250_000
MAX_DEPTH = 64
MAX_TEXT = 4096
MAX_INLINE = 16 << 20  # bytes, of all tensors that the file has as text


def to_json(value: Any) -> Any:
    """The value, without what JSON cannot say. RefusedError where it is too deep or too large."""
    nodes = inline = 0

    def convert(value: Any, depth: int) -> Any:
        nonlocal nodes, inline
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
            node = _tensor(value, value.storage)
            inline += len(node.get("data", ""))
            if inline > MAX_INLINE:
                raise RefusedError(
                    "it holds its tensors as text (pickle protocol 2): save it with protocol 3 or later."
                )
            return node
        return None  # a name or bytes that nothing was made of

    return convert(value, 0)


def _tensor(tensor: Tensor, storage: Storage) -> dict[str, Any]:
    if storage.start < 0:
        raise RefusedError("it holds a tensor whose data are missing.")
    sizes = list(zip(tensor.shape, tensor.stride, strict=True))
    extent = sum((n - 1) * s for n, s in sizes) + 1 if all(tensor.shape) else 0
    node = {
        "$": "tensor",
        "dtype": storage.dtype,
        "shape": list(tensor.shape),
        "stride": list(tensor.stride),
        "start": storage.start + tensor.offset * storage.itemsize,
        "nbytes": extent * storage.itemsize,
        "storage": [storage.start, storage.numel],
    }
    if storage.inline is not None:
        data = storage.inline[node["start"] : node["start"] + node["nbytes"]]
        node["data"] = base64.b64encode(data).decode()
    return node
