"""One training, or one reading of images, on every rank that torchrun started; rank 0 writes what it came to.

Run: torchrun --standalone --nproc-per-node=2 benchmarks/rank_job.py steps OUT.json --folder FOLDER ...
     torchrun --standalone --nproc-per-node=2 benchmarks/rank_job.py images OUT.json --data IMAGES.zip
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gpu import Device
from profile_step import NET
from steps import Setting, TrainerStep, build_nets

from mclr_fast.data import open_dataset
from mclr_fast.runtime.device.deterministic import use_deterministic_kernels
from mclr_fast.runtime.process.ranks import Ranks

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STEP_IMAGES = 2048  # read at once, EDM2's batch


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["steps", "images"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, help="of log and states")
    parser.add_argument("--sharding", default="replicate", choices=["replicate", "shard"])
    parser.add_argument("--precision", default="fp32", choices=DTYPES)
    parser.add_argument("--images", type=int, default=16, help="a step, of all ranks")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--save-every", type=int, default=0, help="steps")
    parser.add_argument("--timed", action="store_true", help="speed, not numbers: kernels as a run has them")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true", help="a tiny network on the CPU")
    return parser.parse_args(given)


def setting_of(args: argparse.Namespace) -> Setting:
    setting = Setting("ranks", NET, args.images, 3, DTYPES[args.precision], device="cuda")
    return replace(setting.shrunk("cpu"), num_images=args.images) if args.small else setting


def steps(args: argparse.Namespace, ranks: Ranks) -> dict:
    """Train, on from a state if there is one: every step's loss and energies, weights' hash, time a step."""
    setting, device = setting_of(args), Device(ranks.device.type)
    if not args.timed:
        use_deterministic_kernels()
        torch.backends.cudnn.allow_tf32 = False
    net, _ = build_nets(setting)
    log = args.folder / "log.jsonl" if ranks.is_main else None
    train = {"sharding": args.sharding, "log_every": args.images}
    train["checkpoint_every"] = args.save_every * args.images
    step = TrainerStep(setting, net, args.folder, ranks=ranks, log=log, **train)
    trainer = step.trainer
    resumed = trainer.images_seen // args.images
    seconds = []
    while trainer.images_seen < args.steps * args.images:
        started = time.perf_counter()
        step()
        device.finish()
        seconds.append(time.perf_counter() - started)
    trainer.states.wait()
    weights = trainer.average_state()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.is_cuda else 0.0
    found = {
        "ranks": ranks.size,
        "sharding": args.sharding,
        "precision": args.precision,
        "images": args.images,
    }
    found |= {"resumed_from_step": resumed, "machine": device.facts(), "peak_GiB": max(ranks.gather(peak))}
    found["milliseconds"] = float(np.median(seconds[len(seconds) // 3 :])) * 1e3 if seconds else None
    if ranks.is_main:
        lines = trainer.log.lines()
        found["losses"] = [line["loss"] for line in lines]
        found["energies"] = [abs(line["positive"]) + abs(line["negative"]) for line in lines]
        found["weights"] = digest(weights)
    return found


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Equal for equal bits."""
    made = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        made.update(name.encode() + value.flatten().view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:16]


def images(args: argparse.Namespace, ranks: Ranks) -> dict:
    """Images a second that all ranks read together, each its share of a step; after one pass to warm up."""
    dataset = open_dataset(str(args.data), loader="dali", num_threads=0, device=ranks.device)
    device = Device(ranks.device.type)
    order = np.random.default_rng(1).permutation(len(dataset))
    count = 0
    for is_timed in (False, True):
        ranks.wait()
        started = time.perf_counter()
        for first in range(0, len(order), STEP_IMAGES):
            part = order[first : first + STEP_IMAGES]
            read = dataset.images(part[ranks.rows(len(part))])
            count += len(read) * is_timed
        device.finish()
        ranks.wait()
    seconds = time.perf_counter() - started
    total = sum(ranks.gather(count))
    return {"ranks": ranks.size, "images_per_second": total / max(ranks.gather(seconds)), "images": total}


def main(given: Sequence[str] | None = None) -> None:
    args = arguments(given)
    ranks = Ranks("cpu" if args.small else "cuda")
    try:
        if args.folder and ranks.is_main:
            args.folder.mkdir(parents=True, exist_ok=True)
        ranks.wait()
        found = {"steps": steps, "images": images}[args.job](args, ranks)
        if ranks.is_main:
            args.out.write_text(json.dumps(found) + "\n")
        ranks.wait()
    finally:
        ranks.close()


if __name__ == "__main__":
    main()
