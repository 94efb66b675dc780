"""What a pickle of a model is made of: the names it may hold, and what is kept of its values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO

SKIP_FROM = 1 << 20  # bytes values at least this long stay on disk

# Storage class -> (dtype as safetensors names it, bytes an element).
STORAGES = {
    "torch.DoubleStorage": ("F64", 8),
    "torch.FloatStorage": ("F32", 4),
    "torch.HalfStorage": ("F16", 2),
    "torch.BFloat16Storage": ("BF16", 2),
    "torch.LongStorage": ("I64", 8),
    "torch.IntStorage": ("I32", 4),
    "torch.ShortStorage": ("I16", 2),
    "torch.CharStorage": ("I8", 1),
    "torch.ByteStorage": ("U8", 1),
    "torch.BoolStorage": ("BOOL", 1),
}
EASY_DICT = "dnnlib.util.EasyDict"
ORDERED_DICT = "collections.OrderedDict"
PERSISTENT_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
LOAD_STORAGE = "torch.storage._load_from_bytes"
CONTAINERS = {f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential")}
NDARRAY, NUMPY_DTYPE = "numpy.ndarray", "numpy.dtype"
REBUILD_ARRAY = {"numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"}
ARRAY_DTYPES = {  # numpy's name of a dtype -> (dtype as safetensors names it, bytes an element)
    "f8": ("F64", 8),
    "f4": ("F32", 4),
    "f2": ("F16", 2),
    "i8": ("I64", 8),
    "i4": ("I32", 4),
    "u1": ("U8", 1),
}
KNOWN = {*STORAGES, *CONTAINERS, *REBUILD_ARRAY, NDARRAY, NUMPY_DTYPE} | {
    EASY_DICT,
    ORDERED_DICT,
    PERSISTENT_OBJECT,
    REBUILD_TENSOR,
    REBUILD_PARAMETER,
    LOAD_STORAGE,
}


class RefusedError(Exception):
    """What the file holds, in words that follow "is refused:"."""


class Window:
    """Bytes start to end of a file, as `pickletools.genops` reads them; positions are the file's own."""

    def __init__(self, file: BinaryIO, start: int, end: int):
        self.file, self.position, self.end = file, start, end

    def tell(self) -> int:
        """Where the next byte is in the file."""
        return self.position

    def read(self, count: int) -> bytes | Skipped:
        """Exactly `count` bytes, checked against what is left before anything is allocated."""
        if not 0 <= count <= self.end - self.position:
            raise RefusedError(f"it ends before {count:,} bytes that it announces at byte {self.position:,}.")
        self.file.seek(self.position)
        self.position += count
        return self.file.read(count) if count < SKIP_FROM else Skipped(count)

    def readline(self) -> bytes:
        """A line of at most 1,000 bytes: names are shorter."""
        self.file.seek(self.position)
        line = self.file.readline(min(1000, self.end - self.position))
        self.position += len(line)
        return line


class Skipped:
    """Bytes that stay on disk: only where they are will be asked for."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Bytes:
    """A bytes value: where it is in the file."""

    start: int
    end: int


@dataclass(frozen=True)
class Global:
    """One of the KNOWN names: a word, not what it names."""

    name: str


@dataclass
class Storage:
    """Elements somewhere in the file; `start` is known once their data have been found."""

    dtype: str
    itemsize: int
    numel: int
    start: int = -1


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, checked to lie inside it and to be no larger than it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class DType:
    """numpy's dtype by name, and its byte order once that is known."""

    name: str
    order: str = "|"


@dataclass
class Array:
    """numpy's array: a tensor once its state is known; of elements with a name in ARRAY_DTYPES alone."""

    tensor: Tensor | None = None


@dataclass
class Object:
    """An object by the name of its class, and its attributes. Its source, if it came with any, is dropped."""

    class_name: str
    state: dict = field(default_factory=dict)


def check(value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value, if it is of this kind and no subclass. RefusedError otherwise."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        wanted = " or ".join(k.__name__ for k in kinds)
        raise RefusedError(f"it holds {type(value).__name__} where {wanted} belongs.")
    return value


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


def array_tensor(shape: Any, dtype: Any, is_fortran: Any, data: Any) -> Tensor | None:
    """What an array's state describes; None for elements that no tensor has, such as big-endian ones."""
    check(shape, tuple), check(dtype, DType)
    if dtype.name not in ARRAY_DTYPES or dtype.order == ">" or not isinstance(data, Bytes):
        return None
    name, itemsize = ARRAY_DTYPES[dtype.name]
    storage = Storage(name, itemsize, (data.end - data.start) // itemsize, data.start)
    steps, step = [], 1
    for size in shape if check(is_fortran, (bool, int)) else reversed(shape):
        steps.append(step)
        step *= max(1, check(size, int))
    return tensor(storage, 0, shape, tuple(steps if is_fortran else reversed(steps)))
