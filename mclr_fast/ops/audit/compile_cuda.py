"""The CUDA C++ kernels of csrc/, compiled by nvcc for each architecture."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from . import machine_code

CSRC = Path(__file__).parents[3] / "csrc"
OPS = ("adam_norm_ema_", "weight_norm_scale")


def missing() -> str:
    """Why the CUDA kernels cannot be compiled here; empty if they can."""
    if not CSRC.is_dir():
        return "csrc/ is not here (it is in a source checkout)"
    return "" if shutil.which("nvcc") else "nvcc was not found"


def _source(op: str) -> Path:
    return CSRC / op / f"{op}_cuda.cu"


@lru_cache
def compiled(arch: int) -> dict[str, list[machine_code.Code]]:
    """op -> its kernels, every template instantiation of one taken together."""
    include = [f"-I{CSRC / folder}" for folder in (".", "include", "common")]
    flags = ["-std=c++17", "-O3", "-cubin", f"-arch=sm_{arch}"]
    with tempfile.TemporaryDirectory() as folder:
        targets = {op: Path(folder, f"{op}.cubin") for op in OPS}
        running = {
            op: subprocess.Popen(
                ["nvcc", *flags, *include, "-o", str(target), str(_source(op))],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for op, target in targets.items()
        }
        for op, process in running.items():
            output, _ = process.communicate()
            if process.returncode != 0:
                raise RuntimeError(f"nvcc cannot compile {_source(op).name} for sm_{arch}: {output[-2000:]}")
        codes = machine_code.read([target.read_bytes() for target in targets.values()], arch)
    return {op: _families(found) for op, found in zip(targets, codes, strict=True)}


def _families(codes: list[machine_code.Code]) -> list[machine_code.Code]:
    """Instantiations of one kernel as one: the most registers and shared memory, all spills and accesses."""
    families: dict[str, list[machine_code.Code]] = {}
    for code in codes:
        name = re.search(r"[a-z]+_kernel", code.name)
        families.setdefault(name.group() if name else code.name, []).append(code)
    found = []
    for name, members in families.items():
        accesses: dict[int, int] = {}
        for member in members:
            for width, count in member.accesses.items():
                accesses[width] = accesses.get(width, 0) + count
        label = f"{name} ({len(members)} variants)" if len(members) > 1 else name
        registers, shared = (max(getattr(m, key) for m in members) for key in ("registers", "shared"))
        found.append(machine_code.Code(label, registers, shared, sum(m.spills for m in members), accesses))
    return found
