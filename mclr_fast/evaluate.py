"""Score a saved model, or images: `python -m mclr_fast.evaluate MODEL | --images PATH`."""

from __future__ import annotations

import json
import sys

from mclr_fast.config import EvaluateConfig
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Judge a model's samples, or images, and print the row (FD, IS, precision, ...) as JSON.
A run's folder gives the row of its report: its best model, its protocol, seeds and sampler, unless said.

Examples:
  python -m mclr_fast.evaluate mnist16-base
  python -m mclr_fast.evaluate runs/mnist16
  python -m mclr_fast.evaluate runs/edm2-img64-s/checkpoints/best --protocol paper --ref img64.zip
  python -m mclr_fast.evaluate --images samples.npz --protocol fid,is --ref img64.zip
  torchrun --nproc-per-node 2 -m mclr_fast.evaluate mnist16-base --num-samples 2000
"""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Load, sample, judge, print. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    config = parsed(EvaluateConfig, given(arguments), "mclr_fast.evaluate", DESCRIPTION)
    from mclr_fast.experiments.one_model.evaluate_model import evaluate
    from mclr_fast.runtime.process.main import run_door

    def work(ranks, stop) -> None:
        found = evaluate(config, ranks, stop)
        if ranks.is_main:
            print(json.dumps(found))

    return run_door(config.device, work)


if __name__ == "__main__":
    sys.exit(main())
