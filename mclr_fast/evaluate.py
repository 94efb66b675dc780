"""Score a saved model: `python -m mclr_fast.evaluate MODEL`."""

from __future__ import annotations

import json
import sys

import tyro

from mclr_fast.config import EvaluateConfig

DESCRIPTION = """Sample from a model and print its row (FD, IS, precision, recall, accuracy) as JSON.

Examples:
  python -m mclr_fast.evaluate mnist16-base
  torchrun --nproc-per-node 2 -m mclr_fast.evaluate runs/mnist16/checkpoints/best --num-samples 2000
"""


def main(arguments: list[str] | None = None) -> int:
    """Load, sample, score, print. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    config = tyro.cli(EvaluateConfig, args=arguments, prog="mclr_fast.evaluate", description=DESCRIPTION)
    from mclr_fast.experiments.evaluate_model import evaluate_model
    from mclr_fast.runtime.main import run_door

    def work(ranks, stop) -> None:
        row = evaluate_model(config, ranks, stop)
        if ranks.is_main:
            print(json.dumps(row.to_json()))

    return run_door(config.device, work)


if __name__ == "__main__":
    sys.exit(main())
