"""What networks compute in on this machine."""

from __future__ import annotations

from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What the U-Net computes in: bf16 where it is native, unless told otherwise."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.backends.mkldnn.is_available() and _cpu_has_bf16()
        precision = "bf16" if native else "fp32"
    return DTYPES[precision]


def name_of(dtype: torch.dtype) -> str:
    """What `--precision` calls it."""
    return next(name for name, each in DTYPES.items() if each == dtype)


def _cpu_has_bf16() -> bool:
    """Whether bf16 is more than emulated; the flag file exists on Linux alone."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
