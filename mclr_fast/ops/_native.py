"""The libraries that setup.py built from csrc/, called through ctypes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "lib"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # in the order of csrc/include/mclr_fast.h's codes


class Library:
    """One loaded library; `library.modulate_silu_forward(...)` calls `mclr_modulate_silu_forward`.

    Tensors (and None) go as pointers, ints as int64_t, floats as float: the C interface has nothing else. A
    tensor must have the layout that the C function wants. The first call of a function says which of its
    arguments are floats; an int there later is converted, a float in an int's place is an error.
    """

    def __init__(self, path: Path):
        self._library = ctypes.CDLL(str(path))

    def __getattr__(self, name: str):
        function = getattr(self._library, f"mclr_{name}")
        function.restype = ctypes.c_int64

        def call(*arguments) -> int:
            if function.argtypes is None:
                function.argtypes = [_c_type(argument) for argument in arguments]
            return function(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments])

        setattr(self, name, call)
        return call


def _c_type(argument: Tensor | int | float | None) -> type:
    if isinstance(argument, float):
        return ctypes.c_float
    return ctypes.c_int64 if isinstance(argument, int) else ctypes.c_void_p


def _instruction_set() -> str | None:
    """Which of setup.py's builds this processor runs; None for none of them."""
    names = {"AVX512": "avx512", "AVX2": "avx2", "DEFAULT": None, "NO AVX": None}
    name = names.get(torch.backends.cpu.get_cpu_capability(), "generic")
    return "avx512_bf16" if name == "avx512" and torch.cpu._is_avx512_bf16_supported() else name


@lru_cache
def load(kind: str) -> tuple[Library | None, str]:
    """The library for "cpu" or "cuda" and where it is from, or None and why there is none."""
    try:
        problem = json.loads((FOLDER / "build.json").read_text())[kind]
    except FileNotFoundError:
        return None, "the kernels were not built; `pip install -e .` builds them"
    if problem:
        return None, f"not built: {problem.strip().splitlines()[-1]}"
    name = _instruction_set() if kind == "cpu" else "cuda"
    if name is None:
        return None, "this processor has neither AVX2 nor AVX-512"
    path = FOLDER / f"libmclr_fast_{name}.so"
    try:
        return Library(path), f"csrc, {name}"
    except OSError as error:
        return None, f"{path.name} does not load: {error}"


def cpu() -> Library:
    """The CPU kernels; only called once `_choice` has found them."""
    library, reason = load("cpu")
    if library is None:
        raise RuntimeError(f"the CPU kernels are not there: {reason}.")
    return library


def code(x: Tensor) -> int:
    """The C interface's number of x's dtype."""
    return DTYPES.index(x.dtype)


def table(rows: Sequence[Sequence[Tensor | int | None]]) -> Tensor:
    """C structs of pointers and int64_t, one a row; the tensors must outlive the call it is for."""
    fields = [value.data_ptr() if isinstance(value, Tensor) else value or 0 for row in rows for value in row]
    return torch.tensor(fields, dtype=torch.int64)


def launch(name: str, device: torch.device, *arguments) -> None:
    """Run a CUDA kernel on the device's current stream."""
    library, reason = load("cuda")
    if library is None:
        raise RuntimeError(f"the CUDA kernels are not there: {reason}.")
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream().cuda_stream
        error = getattr(library, f"{name}_cuda")(*arguments, ctypes.c_void_p(stream))
    if error:
        raise RuntimeError(f"{name} failed on {device} with CUDA error {error}.")
