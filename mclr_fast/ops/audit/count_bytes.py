"""Bytes that the Triton kernels move, counted under Triton's interpreter, over each op's lower bound.

    TRITON_INTERPRET=1 python -m mclr_fast.ops.audit.count_bytes

prints JSON, [op, function, bytes counted, lower bound] of each call. `counted()` runs that in a process of
its own, for a process decides once whether its kernels are compiled or interpreted.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .shapes import Call, Network, Spec, calls

SMALL = Network("small", 64, 4, resolution=8, attention=(2, 1), embed_dim=64, length=32)
CUDA_COUNTER = Path(__file__).parents[3] / "tests" / "ops" / "cuda" / "count_bytes.py"


def _chosen() -> list[Call]:
    """Of each op and function one call with shared operands and one without."""
    found: dict[tuple, Call] = {}
    for call in calls(SMALL, images=2, columns=2, dtype=torch.float32):
        rows = [a.shape[0] if isinstance(a, Spec) else a for a in call.arguments]
        found.setdefault((call.op, call.function, len(set(rows) - {None})), call)
    return list(found.values())


def _count(call: Call) -> tuple[int, int]:
    """(bytes of global memory that the call's kernels move, the op's lower bound)."""
    from triton.runtime.interpreter import InterpreterBuilder

    moved = 0
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def size(pointers, mask) -> int:
        lanes = np.broadcast_to(mask.data, np.shape(pointers.data)).sum()
        return int(lanes) * pointers.get_element_ty().primitive_bitwidth // 8

    def counted_load(self, pointers, mask, *rest):
        nonlocal moved
        moved += size(pointers, mask)
        return load(self, pointers, mask, *rest)

    def counted_store(self, pointers, value, mask, *rest):
        nonlocal moved
        moved += size(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    # tl.load and tl.store, masked or not, end in these two.
    InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = (
        counted_load,
        counted_store,
    )
    try:
        module = importlib.import_module(f"mclr_fast.ops.triton_kernels.{call.op}")
        results = getattr(module, call.function)(*call.make("cpu"))
    finally:
        InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = load, store
    results = results if isinstance(results, tuple) else (results,)
    return moved, call.least_bytes(tuple(x for x in results if x is not None))


def _run(*command: str) -> list[list]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if run.returncode != 0:
        raise RuntimeError(f"counting bytes failed: {run.stderr.strip()[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def missing() -> str:
    """Why Triton's interpreter cannot run the kernels here; empty if it can."""
    try:
        import triton
    except ImportError as error:
        return f"triton is not there: {error}"
    old_triton = _release(triton.__version__) < (3, 7)
    if old_triton and _release(np.__version__) >= (2, 5):  # it makes a number of an array with one element
        return (
            f"Triton {triton.__version__} interprets no loops with NumPy {np.__version__}: below 2.5 it does"
        )
    return ""


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


@lru_cache
def counted() -> dict[tuple[str, str], float]:
    """(op, function) -> bytes moved over the lower bound, the worst of its calls; empty if `missing`."""
    if missing():
        return {}
    return _worst(_run("-m", "mclr_fast.ops.audit.count_bytes"))


@lru_cache
def counted_cuda() -> dict[tuple[str, str], float]:
    """The same for the CUDA kernels, under the tests' host shim; empty where that is not here."""
    return _worst(_run(str(CUDA_COUNTER))) if CUDA_COUNTER.is_file() else {}


def _worst(rows: list[list]) -> dict[tuple[str, str], float]:
    worst: dict[tuple[str, str], float] = {}
    for op, function, moved, least in rows:
        worst[op, function] = max(worst.get((op, function), 0.0), moved / least)
    return worst


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps([[call.op, call.function, *_count(call)] for call in _chosen()]))
