"""Triton kernels compiled ahead of time, just as a launch on a GPU would specialise and compile them."""

from __future__ import annotations

import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

from . import machine_code
from .shapes import Call


class Specialization(NamedTuple):
    """A kernel as one or more calls launch it.

    Attributes:
        op, kernel: names; num_warps: of a program.
        call: the one with the most bytes; least_bytes: its lower bound, 0 for a helper's launch after the
            call's own kernel.
        num_calls: how many distinct calls launch this very machine code.
    """

    op: str
    kernel: str
    num_warps: int
    call: Call
    least_bytes: int
    num_calls: int


_parsing = Lock()


def launches(call: Call) -> tuple[list[Any], int]:
    """The launches that a call makes, recorded on the meta device, and its lower bound in bytes."""
    common = importlib.import_module("mclr_fast.ops.triton_kernels._common")
    module = importlib.import_module(f"mclr_fast.ops.triton_kernels.{call.op}")
    with common.recording() as recorded:
        results = getattr(module, call.function)(*call.make("meta"))
    results = results if isinstance(results, tuple) else (results,)
    return recorded, call.least_bytes(tuple(x for x in results if x is not None))


def _prepare(launch: Any, arch: int) -> tuple[Any, Any, dict[str, Any]]:
    """(source, target, options) of triton.compile. The binder is the one that a launch goes through."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    class SpecializedSource(ASTSource):
        """Parsed by one thread at a time: CPython 3.11 counts a parser's depth for all threads together."""

        def make_ir(self, *arguments, **options):
            with _parsing:
                return super().make_ir(*arguments, **options)

    kernel, target = launch.kernel, GPUTarget("cuda", arch, 32)
    backend = make_backend(target)
    wishes = {"num_warps": launch.num_warps, "debug": False}
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, _ = binder(*launch.arguments.values(), **wishes)
    options, signature, constexprs, attributes = kernel._pack_args(
        backend, dict(wishes), bound, specialization, dict(wishes)
    )
    return SpecializedSource(kernel, signature, constexprs, attributes), target, options.__dict__


def specializations(calls: list[Call], arch: int) -> dict[str, tuple[Specialization, Any]]:
    """What the calls compile to, each once: key -> (specialisation, what `compiled` wants)."""
    found: dict[str, tuple[Specialization, Any]] = {}
    for call in calls:
        recorded, least_bytes = launches(call)
        for i, launch in enumerate(recorded):
            source, target, options = _prepare(launch, arch)
            key = f"{source.hash()} {launch.num_warps} {arch}"
            new = Specialization(call.op, launch.name, launch.num_warps, call, 0 if i else least_bytes, 1)
            if key in found:
                old, _ = found[key]
                largest = max(old, new, key=lambda special: special.least_bytes)
                new = largest._replace(num_calls=old.num_calls + 1)
            found[key] = new, (source, target, options)
    return found


_codes: dict[str, machine_code.Code] = {}


def _compile(prepared: Any) -> tuple[bytes, int]:
    """A kernel's cubin and the shared memory that it asks for."""
    import triton

    source, target, options = prepared
    kernel = triton.compile(source, target=target, options=options)
    return kernel.asm["cubin"], kernel.metadata.shared


def compiled(calls: list[Call], arch: int) -> list[tuple[Specialization, machine_code.Code]]:
    """Every distinct kernel of the calls, compiled for sm_`arch`. Kept for the life of the process."""
    found = specializations(calls, arch)
    new = [key for key in found if key not in _codes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda key: _compile(found[key][1]), new))
    codes = machine_code.read([cubin for cubin, _ in results], arch)
    for key, (_, shared), (code,) in zip(new, results, codes, strict=True):
        _codes[key] = code._replace(shared=shared)
    return [(specialization, _codes[key]) for key, (specialization, _) in found.items()]


@lru_cache
def missing() -> str:
    """Why Triton's kernels cannot be compiled here; empty if they can."""
    try:
        import triton
    except ImportError as error:
        return f"triton is not there: {error}"
    return "triton runs as interpreter (TRITON_INTERPRET)" if triton.knobs.runtime.interpret else ""
