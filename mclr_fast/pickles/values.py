"""What a pickle of a model is made of: the names it may hold, and what is kept of its values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_VALUE = 1 << 20  # bytes of a text or a number; a bytes value stays in the file, however long it is

METADATA = "$metadata"  # the key that a state_dict's own metadata come under

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
DICTIONARIES = {EASY_DICT, ORDERED_DICT}
PERSISTENT_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
REBUILD_PARAMETER_WITH_STATE = "torch._utils._rebuild_parameter_with_state"
REBUILD_WITH_STATE, TENSOR_TYPE = "torch._tensor._rebuild_from_type_v2", "torch.Tensor"
LOAD_STORAGE = "torch.storage._load_from_bytes"
NDARRAY, NUMPY_DTYPE = "numpy.ndarray", "numpy.dtype"
CORES = ("numpy.core", "numpy._core")  # numpy 1's name of the module, and numpy 2's
REBUILD_ARRAY = {f"{core}.multiarray._reconstruct" for core in CORES}
ARRAY_OF_BUFFER = {f"{core}.numeric._frombuffer" for core in CORES}
NUMPY_SCALAR = {f"{core}.multiarray.scalar" for core in CORES}
ENCODE, EMPTY_BYTES = "_codecs.encode", "__builtin__.bytes"
SETS = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset")}
DEVICE, SIZE = "torch.device", "torch.Size"
TORCH_DTYPES = {
    f"torch.{name}"
    for name in (
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    )
}
CONTAINERS = {
    f"torch.nn.modules.container.{name}"
    for name in ("ModuleDict", "ModuleList", "Sequential", "ParameterDict", "ParameterList")
}
WRAPPERS = {
    "torch.nn.parallel.distributed.DistributedDataParallel",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.optim.swa_utils.AveragedModel",
}
WRAPPERS_SETTINGS = {
    "torch.distributed.algorithms.join._JoinConfig",
    "torch.nn.parallel.distributed._BucketCapacityConfig",
}
LOSSES = {
    f"mclr_fast.integrations.nvlabs_edm2.{name}" for name in ("MCLRLoss", "CCDPOLoss", "CCALoss", "DDOLoss")
}
EDM2_ROOM = "mclr_fast.models.edm2"
OWN_MODULES = {f"{EDM2_ROOM}.network.Precond", f"{EDM2_ROOM}.network.UNet"} | {
    f"{EDM2_ROOM}.layers.{name}" for name in ("Block", "MPConv", "MPFourier")
}
OWN_HOOKS = {f"{EDM2_ROOM}.network.{name}" for name in ("_gains_to_scalars", "_gains_from_scalars")}
MODULE_HOOK = "torch.nn.modules.module._WrappedHook"
NAMESPACE = "argparse.Namespace"
PATHS = {
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
}

# Every name that a file may hold: who writes it -> names. Nothing is called for any of them.
# tests/pickles/test_producers.py makes each kind of file at protocols 2 to 5 and compares.
NAMES = {
    "torch.save: the element type of a tensor's data": STORAGES,
    "torch, every tensor": {REBUILD_TENSOR},
    "torch, every parameter": {REBUILD_PARAMETER},
    "torch, a parameter that was given attributes": {REBUILD_PARAMETER_WITH_STATE},
    "torch, another tensor that was": {REBUILD_WITH_STATE, TENSOR_TYPE},
    "torch, a tensor's data in a plain pickle": {LOAD_STORAGE},
    "torch's state_dicts, and a module's own dictionaries": {ORDERED_DICT},
    "EDM2: its dictionaries": {EASY_DICT},
    "EDM2: every network, layer, encoder and loss": {PERSISTENT_OBJECT},
    "torch's modules that hold modules or parameters": CONTAINERS,
    "torch's wrappers around a network": WRAPPERS,
    "attributes of DistributedDataParallel": WRAPPERS_SETTINGS,
    "snapshots of EDM2's loop that trained with a loss of this package": LOSSES,
    "torch.save of a network that mclr_fast.load gave": {*OWN_MODULES, *OWN_HOOKS, MODULE_HOOK},
    "numpy's arrays: an encoder's scale and bias, reference statistics": {NDARRAY} | REBUILD_ARRAY,
    "numpy's arrays at protocol 5": ARRAY_OF_BUFFER,
    "the element type of numpy's arrays and numbers": {NUMPY_DTYPE},
    "numpy's numbers: the learning rate in an EDM2 training state": NUMPY_SCALAR,
    "bytes at protocol 2, torch.save's: what arrays and numbers are made of": {ENCODE, EMPTY_BYTES},
    "sets at protocols 2 and 3: a module's non-persistent buffers": SETS,
    "what programs keep beside a state: devices, shapes, element types": {DEVICE, SIZE, *TORCH_DTYPES},
    "what programs keep beside a state: their command line's options, and paths": {NAMESPACE, *PATHS},
}
KNOWN = frozenset().union(*NAMES.values())


class RefusedError(Exception):
    """What the file holds, in words that follow "is refused:"."""


class Window:
    """Bytes start to end of a file, as the readers of `pickletools` read them; positions are the file's."""

    def __init__(self, file: BinaryIO, start: int, end: int):
        self.file, self.position, self.end = file, start, end

    def tell(self) -> int:
        """Where the next byte is in the file."""
        return self.position

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, checked against what is left before anything is allocated."""
        start = self.skip(count)
        if count > MAX_VALUE:
            raise RefusedError(
                f"it holds a value of {count:,} bytes at byte {start:,} that is no tensor's data."
            )
        self.file.seek(start)
        return self.file.read(count)

    def skip(self, count: int) -> int:
        """Go past `count` bytes, which stay on disk, and give where they start."""
        if not 0 <= count <= self.end - self.position:
            raise RefusedError(
                f"it ends before {count:,} bytes that it announces at byte {self.position:,}: it is damaged, "
                "or its download was cut short."
            )
        self.position += count
        return self.position - count

    def readline(self) -> bytes:
        """A line of at most 1,000 bytes: names are shorter."""
        self.file.seek(self.position)
        line = self.file.readline(min(1000, self.end - self.position))
        self.position += len(line)
        return line


@dataclass(frozen=True)
class Bytes:
    """A bytes value: where it is in the file, or, of protocol 2, which writes bytes as text, itself."""

    start: int
    end: int
    inline: bytes | None = None


@dataclass(frozen=True)
class Global:
    """One of the KNOWN names: a word, not what it names."""

    name: str


@dataclass
class Storage:
    """Elements somewhere in the file; `start` is known once their data have been found.

    Where the file has them as text, `inline` are the bytes that `start` counts in.
    """

    dtype: str
    itemsize: int
    numel: int
    start: int = -1
    inline: bytes | None = None


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
    """numpy's array: a tensor once its state is known, if its elements are some that tensors have."""

    tensor: Tensor | None = None


@dataclass
class Object:
    """An object by the name of its class, and its attributes. Its source, if it came with any, is dropped."""

    class_name: str
    state: dict = field(default_factory=dict)


@dataclass
class Inert:
    """An object of which nothing is kept, such as a module's hook, which holds the module."""


def check(value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value, if it is of this kind and no subclass. RefusedError otherwise."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        wanted = " or ".join(k.__name__ for k in kinds)
        raise RefusedError(f"it holds {type(value).__name__} where {wanted} belongs.")
    return value
