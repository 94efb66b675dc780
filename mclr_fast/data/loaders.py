"""What decodes the images of a data set on disk: PIL and numpy in threads, or NVIDIA DALI."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import numpy as np
import torch

from mclr_fast.runtime.process.launch import launched

from .plain_loader import ImageFiles, PlainLoader

LOADERS = ("auto", "plain", "dali")
MAX_THREADS = 16


Loader = Callable[[np.ndarray], "np.ndarray | torch.Tensor"]


def default_threads() -> int:
    """Threads of this rank's loader: its share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_THREADS, cores // launched().local_size))


def make_loader(
    name: str, files: ImageFiles, num_threads: int = 1, device: torch.device | None = None
) -> Loader:
    """The loader of this name; "auto" is DALI for PNG where it is installed, plain otherwise.

    Both give the same pixels of PNG files and latents, and of JPEG on the CPU; a GPU's JPEG decoder gives
    others, and latents are only copied: those DALI loads when it is asked for by name.

    device: where DALI decodes, a GPU ("mixed") or None = the CPU. num_threads: 0 = this rank's share.
    Errors    ValueError for an unknown loader, or one that is asked for and not installed.
    """
    if name not in LOADERS:
        raise ValueError(f"the loader must be one of {', '.join(LOADERS)}, not {name!r}")
    installed = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    if name == "dali" and not installed:
        raise ValueError(
            "--loader dali: NVIDIA DALI is not installed: pip install 'mclr_fast[dali]' "
            "(or nvidia-dali-cuda120 for CUDA 12), or choose --loader plain"
        )
    num_threads = num_threads or default_threads()
    plain = PlainLoader(files, num_threads)
    all_png = all(name.lower().endswith(".png") for name in files.names)
    if name == "plain" or (name == "auto" and not (installed and all_png)):
        return plain
    from .dali import DaliLoader

    return DaliLoader(files, num_threads, device, plain)
