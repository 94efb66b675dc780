"""What a run's figures were made with."""

from __future__ import annotations

import platform
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


def describe_device(device: torch.device) -> str:
    """ "cuda (name)" or "cpu (n threads)"."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
