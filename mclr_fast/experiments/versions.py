"""What a run's figures were made with, and by which command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from typing import Any

import numpy as np
import torch

import mclr_fast


def versions(device: torch.device, base_sha256: str | None) -> dict[str, Any]:
    """What the figures were made with."""
    return {
        "mclr_fast": mclr_fast.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": describe_device(device),
        "base_sha256": base_sha256,
    }


def command(num_ranks: int) -> str | None:
    """The command that started this run; None where a program called it."""
    if not sys.argv[0].endswith(os.path.join("mclr_fast", "train.py")):
        return None
    options = shlex.join(sys.argv[1:])
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return f"python -m mclr_fast.train {options}".rstrip()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", num_ranks))
    nodes = f" --nnodes {num_ranks // local}" if num_ranks > local else ""
    ranks = f" --nproc-per-node {local}" if local > 1 else ""
    return f"torchrun{nodes}{ranks} -m mclr_fast.train {options}".rstrip()


def describe_device(device: torch.device) -> str:
    """ "cuda (name)" or "cpu (n threads)"."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
