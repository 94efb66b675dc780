"""Sample images from a saved model: `python -m mclr_fast.sample MODEL --seeds 0-15`."""

from __future__ import annotations

import sys

import tyro

from mclr_fast.config import SampleConfig

DESCRIPTION = """Sample images, one PNG a seed. Also runs under torchrun.

Examples:
  python -m mclr_fast.sample mnist16-base --seeds 0-19 --outdir out
  python -m mclr_fast.sample runs/mnist16/checkpoints/best --seeds 0-9 --labels 3 --guidance 1.5
"""


def main(arguments: list[str] | None = None) -> int:
    """Load, sample, write. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    config = tyro.cli(SampleConfig, args=arguments, prog="mclr_fast.sample", description=DESCRIPTION)
    from mclr_fast.experiments.sample_files import sample_files
    from mclr_fast.runtime.main import run_door

    def work(ranks, stop) -> None:
        count = sample_files(config, ranks, stop)
        if ranks.is_main:
            print(f"{count} images in {config.outdir}")

    return run_door(config.device, work)


if __name__ == "__main__":
    sys.exit(main())
