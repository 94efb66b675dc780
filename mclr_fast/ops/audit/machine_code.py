"""What a cubin says of its kernels: registers, spills, shared memory, widths of global accesses."""

from __future__ import annotations

import bisect
import importlib.util
import itertools
import re
import shutil
import struct
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ACCESS = re.compile(r"\b(LDG|STG|LDGSTS|LDL|STL)((?:\.\w+)*)")
WIDTHS = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


class Code(NamedTuple):
    """One compiled kernel.

    Attributes:
        name: the kernel's, as the compiler writes it.
        registers: a thread's; shared: static bytes a block.
        spills: instructions that reach local memory, or bytes of stack if there are more of those.
        accesses: instructions that reach global memory, by their width in bytes.
    """

    name: str
    registers: int
    shared: int
    spills: int
    accesses: dict[int, int]


@lru_cache
def tool(name: str) -> str | None:
    """Path of cuobjdump or nvdisasm: Triton's own, or that on PATH."""
    triton = importlib.util.find_spec("triton")
    if triton and triton.submodule_search_locations:
        path = Path(triton.submodule_search_locations[0], "backends", "nvidia", "bin", name)
        if path.is_file():
            return str(path)
    return shutil.which(name)


def missing() -> str:
    """Which tool is not here; empty if none."""
    absent = [name for name in ("cuobjdump", "nvdisasm") if tool(name) is None]
    return f"{' and '.join(absent)} not found (they come with triton)" if absent else ""


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _texts(cubin: bytes) -> dict[str, bytes]:
    """The instructions of each kernel of a cubin, a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    found = {}
    for name_at, *_, offset, length in headers:
        name = cubin[names + name_at : cubin.index(b"\0", names + name_at)].decode()
        if name.startswith(".text."):
            found[name.removeprefix(".text.")] = cubin[offset : offset + length]
    return found


def _disassemble(texts: list[bytes], arch: int) -> list[list[str]]:
    """Lines of assembly of each text. One nvdisasm for all: it takes half a second to start."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(texts))
        file.flush()
        name = f"SM{arch}a" if arch >= 90 else f"SM{arch}"
        listing = _output(tool("nvdisasm"), "--no-dataflow", "-b", name, file.name)
    lines: list[list[str]] = [[] for _ in texts]
    ends = list(itertools.accumulate(map(len, texts)))
    for address, line in re.findall(r"/\*([0-9a-f]{4,})\*/ +([^/]*);", listing):
        lines[bisect.bisect_right(ends, int(address, 16))].append(line)
    return lines


def read(cubins: list[bytes], arch: int) -> list[list[Code]]:
    """The kernels of each cubin, compiled for sm_`arch`."""
    usages, texts = [], []
    for cubin in cubins:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            resources = _output(tool("cuobjdump"), "--dump-resource-usage", file.name)
        usage = re.findall(r"Function (\w+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", resources)
        code_of = _texts(cubin)
        usages.append([(name, *map(int, numbers)) for name, *numbers in usage])
        texts += [code_of[name] for name, *_ in usage]
    lines = iter(_disassemble(texts, arch) if texts else ())
    return [[_code(*numbers, next(lines)) for numbers in usage] for usage in usages]


def _code(name: str, registers: int, stack: int, shared: int, local: int, lines: list[str]) -> Code:
    accesses: dict[int, int] = {}
    num_local = 0
    for line in lines:
        if not (found := ACCESS.search(line)):
            continue
        opcode, modifiers = found.groups()
        if opcode in ("LDL", "STL"):
            num_local += 1
            continue
        widths = [WIDTHS[m] for m in modifiers.split(".") if m in WIDTHS]
        width = widths[0] if widths else 4
        accesses[width] = accesses.get(width, 0) + 1
    return Code(name, registers, shared, max(num_local, stack + local), accesses)
