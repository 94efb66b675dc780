"""Kernels that give the same bits each time they run."""

from __future__ import annotations

import os

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def use_deterministic_kernels() -> None:
    """For the rest of the process: torch, cuDNN and cuBLAS choose reproducible kernels.

    Call it before the first computation on a GPU, whose cuBLAS reads its workspace's size once. An
    operation that has no such kernel is torch's RuntimeError: attention is only sure to be reproducible so.
    """
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads what it has not written
    torch.backends.cudnn.benchmark = False
