"""What a run's figures were made with, and by which command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mclr_fast


def versions(device: torch.device, base_sha256: str | None) -> dict[str, Any]:
    """What the figures were made with."""
    return {
        **software(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": describe_device(device),
        "base_sha256": base_sha256,
    }


def software() -> dict[str, str]:
    """Versions of this package and of torch; the package's commit where it is known."""
    known = {} if (found := commit()) is None else {"commit": found}
    return {"mclr_fast": mclr_fast.__version__, **known, "torch": torch.__version__}


@cache
def commit() -> str | None:
    """The commit that this package is of, "-dirty" after it where files were changed since; None if unknown.

    A checkout's own, or what pip wrote down of one that it installed from.
    """
    root = Path(mclr_fast.__file__).parents[1]
    if (root / ".git").exists():
        describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with suppress(OSError, subprocess.SubprocessError):
            asked = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True)
            return asked.stdout.strip() or None
        return None
    with suppress(metadata.PackageNotFoundError, ValueError, AttributeError):
        said = json.loads(metadata.distribution("mclr_fast").read_text("direct_url.json") or "{}")
        return said.get("vcs_info", {}).get("commit_id")
    return None


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
