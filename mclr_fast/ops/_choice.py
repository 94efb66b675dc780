"""Which implementation serves a call: fused where there is one for its tensors, else the reference.

MCLR_FAST_OPS or `using()` choose: "auto" falls back to the reference, and warns once if something is
missing; "fused" insists; "reference" is plain torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import _native

CHOICES = ("auto", "reference", "fused")
MULTI_TENSOR = ("adam_norm_ema_", "weight_norm_scale")  # CUDA C++ on a GPU; the others are Triton's
DTYPES = {  # of the activations that the fused ops take
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
    "meta": (torch.float32, torch.bfloat16, torch.float16),  # shapes alone: what the fused op would return
}


class Implementation(NamedTuple):
    """One row of the table: the op, the implementation in use, and why."""

    op: str
    implementation: str
    reason: str


def _checked(choice: str) -> str:
    if choice not in CHOICES:
        raise ValueError(f"ops implementation must be one of {', '.join(CHOICES)}, not {choice!r}.")
    return choice


_choice = _checked(os.environ.get("MCLR_FAST_OPS", "auto"))


@contextlib.contextmanager
def using(choice: str) -> Iterator[None]:
    """Choose the implementation of all ops inside a `with`: one of CHOICES; not per thread."""
    global _choice
    before, _choice = _choice, _checked(choice)
    try:
        yield
    finally:
        _choice = before


@lru_cache
def _triton() -> str:
    """Why Triton cannot be used; empty if it can."""
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


def available(op: str, device: str) -> Implementation:
    """The fused implementation of `op` on "cpu" or "cuda", or the reference and why."""
    if device == "meta":
        return Implementation(op, "shapes", "nothing is computed")
    if device == "cpu" or op in MULTI_TENSOR:
        library, reason = _native.load(device)
        return Implementation(op, "native" if library else "reference", reason)
    problem = _triton()
    return Implementation(op, "reference" if problem else "triton", problem or "triton_kernels")


@lru_cache
def _warn_once(device: str, reason: str) -> None:
    warnings.warn(f"mclr_fast runs its ops in plain torch on {device}: {reason}.", stacklevel=4)


def fused(op: str, x: Tensor) -> bool:
    """Whether the fused implementation serves a call with tensors like x.

    Errors    RuntimeError when "fused" was asked for and cannot be had.
    """
    return _decide(_choice, op, x.device.type, x.dtype)


def fused_for(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """The same for a device and dtype."""
    return _decide(_choice, op, device.type, dtype)


@torch.compiler.assume_constant_result
def _decide(choice: str, op: str, device: str, dtype: torch.dtype) -> bool:
    return _decision(choice, op, device, dtype)


@lru_cache
def _decision(choice: str, op: str, device: str, dtype: torch.dtype) -> bool:
    if choice == "reference" or device not in DTYPES:
        return False
    found = available(op, device)
    if dtype not in DTYPES[device]:
        found = Implementation(op, "reference", f"not fused for {dtype}")
    elif choice == "auto" and found.implementation == "reference":
        _warn_once(device, found.reason)
    if choice == "fused" and found.implementation == "reference":
        raise RuntimeError(f"ops='fused' was asked for, but {op} on {device}: {found.reason}.")
    return found.implementation != "reference"


def implementations(ops: tuple[str, ...]) -> list[Implementation]:
    """The table for this machine: a GPU's implementations where there is one, else the CPU's."""
    if _choice == "reference":
        return [Implementation(op, "reference", "MCLR_FAST_OPS=reference") for op in ops]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [available(op, device) for op in ops]
