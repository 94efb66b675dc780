"""A GPU's training step of EDM2-S at 64x64, K = 3, bfloat16: busy and idle, its kernels, and their bytes.

Run: python benchmarks/profile_step.py OUT.json [--sizes 4 16 64] [--graphs off on] [--cudnn-benchmark]

Rows without graphs have an account of every operation: account.py. It is printed last, of the largest N.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import account
import torch
from gpu import Device, kernels, profiled
from steps import PRESET_SHAPE, Setting, TrainerStep, build_nets

from mclr_fast.models.edm2 import PRESETS

STEPS = 10
NET = PRESET_SHAPE | PRESETS["edm2-img64-s"].net


def wall(step: TrainerStep, device: Device) -> float:
    """Seconds a step, of several in one call."""
    device.finish()
    started = time.perf_counter()
    step(STEPS)
    device.finish()
    return (time.perf_counter() - started) / STEPS


def launches(events) -> int:
    """How often the host launched or copied something."""
    host = (event.name for event in events if event.device_type == torch.autograd.DeviceType.CPU)
    return sum("Launch" in name or name.startswith("cudaMemcpy") for name in host)


def optimizer_bytes(step: TrainerStep) -> int:
    """What the prepared update moves, being no operation of its own: states in and out, gradients in."""
    groups = step.trainer.tensors()
    kept = [t for name in ("optimizer", "ema") for t in groups[name].values() if t.ndim]
    params = [p for p in step.trainer.net.parameters() if p.requires_grad]
    return sum(2 * t.nbytes for t in kept) + sum(3 * p.nbytes for p in params)


def measure(setting: Setting, graphs: str) -> dict:
    """One row."""
    device = Device(setting.device)
    net, _ = build_nets(setting)
    with tempfile.TemporaryDirectory() as folder:
        step = TrainerStep(setting, net, Path(folder), cuda_graphs=graphs)
        step(3)  # warm-up, capture, replay
        seconds: list[float] = []
        peak = device.peak_GiB(lambda: seconds.extend(wall(step, device) for _ in range(3)))
        events = profiled(step, device).events()
        found = kernels(events, device)
        busy = sum(sum(kernel.milliseconds) for kernel in found)
        row = {"N": setting.num_images, "graphs": graphs, "wall_ms": statistics.median(seconds) * 1e3}
        row |= {"busy_ms": busy, "over_busy": row["wall_ms"] / busy, "launches": launches(events)}
        row |= {"peak_GiB": peak, "reserved_GiB": device.reserved_GiB(), "machine": device.facts()}
        row["kernels"] = [[k.name, len(k.milliseconds), sum(k.milliseconds)] for k in found]
        if graphs == "off":
            calls, others = account.take(step, device)
            row["copy_bandwidth"] = device.copy_bandwidth()
            known = {"adam": optimizer_bytes(step)}
            row["account"] = account.table(calls, others, row["copy_bandwidth"], known)
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--graphs", nargs="+", default=["off", "on"])
    parser.add_argument("--cudnn-benchmark", action="store_true")
    parser.add_argument("--small", action="store_true", help="a tiny network on the CPU: to see that it runs")
    args = parser.parse_args(arguments)
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    rows = []
    for num_images in args.sizes:
        for graphs in args.graphs:
            setting = Setting("profile", NET, num_images, 3, torch.bfloat16, device="cuda")
            if args.small:
                setting = setting.shrunk("cpu")
            rows.append(measure(setting, graphs) | {"cudnn_benchmark": args.cudnn_benchmark})
            Device(setting.device).empty()
            args.out.write_text(json.dumps(rows, indent=1))
            kept = {key: value for key, value in rows[-1].items() if key not in ("kernels", "account")}
            print(kept, flush=True)
    for name, calls, milliseconds in rows[-1]["kernels"][:40]:
        print(f"{milliseconds:8.3f} ms {calls:5d}  {name[:100]}")
    if told := [row for row in rows if "account" in row]:
        print(account.text(told[-1]["account"], told[-1]["copy_bandwidth"]))


if __name__ == "__main__":
    main()
