"""What this machine does: copy bandwidth, matrix products, convolutions; measured, not looked up."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

FALLBACK_CACHE_BYTES = 32 << 20


def best_seconds(function: Callable[[], object], rounds: int = 5) -> float:
    """Least time of a call, after one to warm up."""
    function()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cache_bytes() -> int:
    """The largest cache's size."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0))
    return max(sizes, default=FALLBACK_CACHE_BYTES)


def past_cache_bytes(quick: bool = False) -> int:
    """A working set that no cache holds: at least 256 MiB and 2.5 times the largest one."""
    return 1 << 20 if quick else max(256 << 20, int(2.5 * cache_bytes()))


class Copy:
    """A copy of arrays past the cache, the yardstick for everything that memory bounds.

    `num_bytes` counts what it reads and what it writes; a bf16 copy moves the same bytes.
    """

    def __init__(self, num_bytes: int, dtype: torch.dtype = torch.float32):
        count = max(num_bytes // (2 * dtype.itemsize), 1)
        self.source = torch.ones(count, dtype=dtype)
        self.target = torch.zeros(count, dtype=dtype)
        self.num_bytes = 2 * count * dtype.itemsize

    def __call__(self) -> None:
        self.target.copy_(self.source)


def measure(quick: bool = False) -> dict[str, float | int | str]:
    """Copy bandwidth in GB/s; GEMM and convolution rates in GFLOP/s; who was measured."""
    size, batch = (256, 2) if quick else (2048, 32)
    result: dict[str, float | int | str] = {
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": torch.get_num_threads(),
        "cache_MiB": cache_bytes() >> 20,
        "torch": torch.__version__,
    }
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        copy = Copy(past_cache_bytes(quick), dtype)
        result[f"copy_{name}_GBs"] = copy.num_bytes / best_seconds(copy) / 1e9
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        result[f"gemm_{name}_GFLOPs"] = 2 * size**3 / best_seconds(lambda a=a, b=b: a @ b) / 1e9
        x = torch.randn(batch, 128, 16, 16).to(dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
        seconds = best_seconds(lambda x=x, w=w: torch.nn.functional.conv2d(x, w, padding=1))
        result[f"conv_{name}_GFLOPs"] = 2 * x.numel() * 128 * 9 / seconds / 1e9
    return result


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
