"""The libraries that setup.py built from csrc/, called through ctypes."""

from __future__ import annotations

import ctypes
import json
import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "lib"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # in the order of csrc/include/mclr_fast.h's codes
BUILD_AGAIN = "`pip install -e .` builds the kernels again"
KINDS = {"void": None, "pointer": ctypes.c_void_p, "int64_t": ctypes.c_int64, "float": ctypes.c_float}


class Library:
    """One loaded library; `library.modulate_silu_forward(...)` calls `mclr_modulate_silu_forward`.

    functions: name -> kinds of the result and the arguments, which setup.py read in mclr_fast.h. Tensors (and
    None) go as pointers, and must have the layout that the C function wants; an int in a float's place is
    converted.

    Errors    TypeError for a float or a tensor in an int's place, or too many or too few arguments.
    """

    def __init__(self, path: Path, functions: dict[str, str]):
        self._library, self._functions = ctypes.CDLL(str(path)), functions

    def __getattr__(self, name: str) -> Callable[..., int | None]:
        if name not in self._functions:
            raise AttributeError(f"the kernels that were built have no {name}: {BUILD_AGAIN}.")
        function = getattr(self._library, f"mclr_{name}")
        result, *kinds = self._functions[name].split()
        function.restype, function.argtypes = KINDS[result], [KINDS[kind] for kind in kinds]
        count, pointers = len(kinds), [place for place, kind in enumerate(kinds) if kind == "pointer"]

        def call(*arguments) -> int | None:
            if len(arguments) != count:
                raise TypeError(
                    f"{name} was built with {count} arguments, not {len(arguments)}: {BUILD_AGAIN}."
                )
            values = list(arguments)
            for place in pointers:
                value = values[place]
                if value is not None and isinstance(value, Tensor):
                    values[place] = value.data_ptr()
            try:
                return function(*values)
            except ctypes.ArgumentError as error:
                raise TypeError(f"{name}: {error}") from None

        setattr(self, name, call)
        return call


def _instruction_set() -> str | None:
    """Which of setup.py's builds this processor runs; None for none of them."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "generic"
    name = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability())
    return "avx512_bf16" if name == "avx512" and torch.cpu._is_avx512_bf16_supported() else name


@lru_cache
def load(kind: str) -> tuple[Library | None, str]:
    """The library for "cpu" or "cuda" and where it is from, or None and why there is none."""
    try:
        report = json.loads((FOLDER / "build.json").read_text())
    except FileNotFoundError:
        return None, "the kernels were not built; `pip install -e .` builds them"
    if problem := report[kind]:
        return None, f"not built: {problem.strip().splitlines()[-1]}"
    if "functions" not in report:
        return None, f"built by an older setup.py; {BUILD_AGAIN}"
    name = _instruction_set() if kind == "cpu" else "cuda"
    if name is None:
        return None, "this processor has neither AVX2 nor AVX-512"
    path = FOLDER / f"libmclr_fast_{name}.so"
    try:
        return Library(path, report["functions"]), f"csrc, {name}"
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


def table(rows: Sequence[Sequence[Tensor | int | None]]) -> ctypes.Array:
    """C structs of pointers and int64_t, one a row; the tensors must outlive the call it is for."""
    fields = [value.data_ptr() if isinstance(value, Tensor) else value or 0 for row in rows for value in row]
    return (ctypes.c_int64 * len(fields))(*fields)


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
