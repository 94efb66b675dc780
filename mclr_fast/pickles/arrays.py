"""Tensors, numpy's arrays and numpy's numbers, checked against the bytes that the file has for them."""

from __future__ import annotations

import struct
from typing import Any

from .values import Array, Bytes, DType, RefusedError, Storage, Tensor, check

ARRAY_DTYPES = {  # numpy's name of a dtype -> dtype as safetensors names it
    "f8": "F64",
    "f4": "F32",
    "f2": "F16",
    "i8": "I64",
    "i4": "I32",
    "i2": "I16",
    "i1": "I8",
    "u1": "U8",
    "b1": "BOOL",
}
NUMBERS = {  # numpy's name of a dtype -> struct's
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "b1": "?",
}


def tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Tensor:
    """A tensor whose elements all lie in its storage, with no more of them than that has."""
    check(storage, Storage), check(offset, int), check(shape, tuple), check(stride, tuple)
    numel, last = 1, offset
    for size, step in zip(shape, stride, strict=True):
        numel *= check(size, int)
        last += (size - 1) * check(step, int)
        if not 0 <= size < 1 << 31 or step < 0 or numel > storage.numel:
            raise RefusedError(
                f"it holds a tensor {list(shape)[:8]} of a storage of {storage.numel:,} elements."
            )
    if offset < 0 or (numel > 0 and last >= storage.numel):
        raise RefusedError(f"it holds a tensor {list(shape)[:8]} that reaches past its storage.")
    return Tensor(storage, offset, shape, stride)


def array(shape: Any, dtype: Any, is_fortran: Any, data: Any) -> Array:
    """What an array's state describes; of elements that no tensor has, such as big-endian ones, nothing."""
    check(shape, tuple), check(dtype, DType)
    if dtype.name not in ARRAY_DTYPES or dtype.order == ">" or not isinstance(data, Bytes):
        return Array(None)
    itemsize = struct.calcsize(NUMBERS[dtype.name])
    storage = Storage(
        ARRAY_DTYPES[dtype.name], itemsize, (data.end - data.start) // itemsize, data.start, data.inline
    )
    steps, step = [], 1
    for size in shape if check(is_fortran, (bool, int)) else reversed(shape):
        steps.append(step)
        step *= max(1, check(size, int))
    return Array(tensor(storage, 0, shape, tuple(steps if is_fortran else reversed(steps))))


def number(dtype: Any, data: bytes) -> int | float | bool | None:
    """A numpy scalar; None for what is no number of struct's."""
    code = NUMBERS.get(check(dtype, DType).name)
    if code is None:
        return None
    (value,) = struct.unpack((">" if dtype.order == ">" else "<") + code, data)
    return value
