"""Turn a model into what another program reads: `python -m mclr_fast.convert SNAPSHOT --to FORMAT OUT`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

DESCRIPTION = """Turn a model into what another program reads.

Example: what NVIDIA's EDM2 training loop resumes from, to fine-tune in it (README, "In your EDM2 code"):
  python -m mclr_fast.convert base/ --to edm2-training-state RUN/training-state-0000000.pt
"""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Options of `python -m mclr_fast.convert`."""

    snapshot: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SNAPSHOT")]
    """Model folder, or "mnist16-base"."""
    to: Literal["edm2-training-state"]
    """edm2-training-state: weights, a fresh Adam and the averages, as EDM2's loop saves them."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write."""


def convert(config: ConvertConfig) -> None:
    """Read the model and write it in the format asked for. RunError for a mistake of the user."""
    from mclr_fast import models
    from mclr_fast.engine.edm2_training_state import write_training_state
    from mclr_fast.engine.errors import RunError

    writers = {"edm2-training-state": write_training_state}
    try:
        net = models.load(config.snapshot)
    except (FileNotFoundError, ValueError) as error:
        raise RunError(str(error)) from None
    writers[config.to](net, config.out)


def main(arguments: list[str] | None = None) -> int:
    """Convert and say where. Exit code 0; 1 after one line on stderr."""
    config = tyro.cli(ConvertConfig, args=arguments, prog="mclr_fast.convert", description=DESCRIPTION)
    from mclr_fast.engine.door import run_door

    def work(ranks, stop) -> None:
        if ranks.is_main:
            convert(config)
            print(config.out)

    return run_door("cpu", work)


if __name__ == "__main__":
    sys.exit(main())
