"""The bytes of a GPU's training step, counted on the meta device: no GPU is needed, and none is timed.

Run: python benchmarks/count_step.py OUT.json [--sizes 16 64]

EDM2-S at 64x64, K = 3, bfloat16: a micro-batch's forward and backward, with the effective weights and without
the update. What the bytes are: account.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import account
from profile_step import NET

from mclr_fast.config import ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.models import Model, describe
from mclr_fast.training.memory import StepMemory

NUM_NEGATIVES = 3


def count(num_images: int, net: dict[str, Any] = NET) -> list[dict]:
    """A row an operation, most bytes first: its name, calls, GB, least GB and whether it is a product."""
    config = RunConfig(
        recipe="benchmark",
        objective=ObjectiveConfig(num_negatives=NUM_NEGATIVES),
        train=TrainConfig(batch_size=num_images, precision="bf16"),
    )
    step, first, mode = StepMemory(config, Model.of(describe(net))), account.Calls(), account.Calls()
    for each in (first, mode):  # the first makes constants
        step.micro_batch(num_images, step.num_columns, False, each)
    kept = ("name", "calls", "GB", "least_GB", "is_product")
    rows = [{key: row[key] for key in kept} for row in account.table(mode.calls, [], 1.0)]
    return sorted(rows, key=lambda row: -row["GB"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Count a step's bytes.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64])
    args = parser.parse_args(arguments)
    counted = [{"N": num_images, "operations": count(num_images)} for num_images in args.sizes]
    args.out.write_text(json.dumps(counted, indent=1))
    for row in counted:
        print(f"N={row['N']}\n{'calls':>6} {'GB':>8} {'least GB':>8}  operation")
        for line in row["operations"]:
            print(f"{line['calls']:6d} {line['GB']:8.3f} {line['least_GB']:8.3f}  {line['name']}")


if __name__ == "__main__":
    main()
