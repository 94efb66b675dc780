"""A GPU's training step of EDM2-S at 64x64, K = 3, bfloat16: busy and idle, and its kernels by time.

Run: python benchmarks/profile_step.py OUT.json [--sizes 4 16 64] [--graphs off on] [--cudnn-benchmark]
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from steps import PRESET_SHAPE, Setting, TrainerStep, build_nets

from mclr_fast.models.edm2 import PRESETS

STEPS = 10
NET = PRESET_SHAPE | PRESETS["edm2-img64-s"].net


def wall(step: TrainerStep) -> float:
    """Seconds a step, of several in one call."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    step(STEPS)
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / STEPS


def kernels(step: TrainerStep) -> tuple[dict[str, list[float]], int]:
    """Of one step: {kernel: [calls, milliseconds]}, and the launches that the host made."""
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        step(1)
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    launches = 0
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            row = found.setdefault(event.name, [0, 0.0])
            row[0] += 1
            row[1] += event.device_time_total / 1e3
        elif "Launch" in event.name or event.name.startswith("cudaMemcpy"):
            launches += 1
    return found, launches


def measure(num_images: int, graphs: str) -> dict:
    """One row."""
    setting = Setting("profile", NET, num_images, 3, torch.bfloat16, device="cuda")
    net, _ = build_nets(setting)
    with tempfile.TemporaryDirectory() as folder:
        step = TrainerStep(setting, net.cuda(), Path(folder), cuda_graphs=graphs)
        step(3)  # warm-up, capture, replay
        torch.cuda.reset_peak_memory_stats()
        seconds = [wall(step) for _ in range(3)]
        found, launches = kernels(step)
    busy = sum(milliseconds for _, milliseconds in found.values())
    row = {"N": num_images, "graphs": graphs, "wall_ms": statistics.median(seconds) * 1e3, "busy_ms": busy}
    row |= {"over_busy": row["wall_ms"] / busy, "launches": launches}
    row["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    row["reserved_GiB"] = torch.cuda.memory_reserved() / 2**30
    row["kernels"] = sorted(([name, *values] for name, values in found.items()), key=lambda v: -v[2])
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--graphs", nargs="+", default=["off", "on"])
    parser.add_argument("--cudnn-benchmark", action="store_true")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    rows = []
    for num_images in args.sizes:
        for graphs in args.graphs:
            rows.append(measure(num_images, graphs) | {"cudnn_benchmark": args.cudnn_benchmark})
            gc.collect()
            torch.cuda.empty_cache()
            args.out.write_text(json.dumps(rows, indent=1))
            print({key: value for key, value in rows[-1].items() if key != "kernels"}, flush=True)
    for name, calls, milliseconds in rows[-1]["kernels"][:40]:
        print(f"{milliseconds:8.3f} ms {calls:5d}  {name[:100]}")


if __name__ == "__main__":
    main()
