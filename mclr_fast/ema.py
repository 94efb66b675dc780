"""Averages that a run did not keep: `python -m mclr_fast.ema RUN --std 0.1 --out FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Reconstruct power-function averages of any width from a run's snapshots (EDM2, algorithm 3).

A run keeps snapshots if it is told to, as the first command does. Each average becomes a model folder.

Example:
  python -m mclr_fast.train --ema power --ema-snapshot-every 640 --outdir runs/averages
  python -m mclr_fast.ema runs/averages --std 0.07 --std 0.15 --out averages
  python -m mclr_fast.evaluate averages/0.150
"""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Options of `python -m mclr_fast.ema`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run, its --outdir."""
    std: tyro.conf.UseAppendAction[tuple[float, ...]]
    """Width of the average, relative to the training so far, in (0, 0.2886]; may be given several times."""
    out: Path
    """Folder to write to: a model FOLDER/0.100 for --std 0.1."""
    images: int | None = None
    """Images seen at which the average ends; default: those of the last snapshot."""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Reconstruct, write, say where. Exit code 0; 1 after one line on stderr."""
    config = parsed(EmaConfig, given(arguments), "mclr_fast.ema", DESCRIPTION)
    from mclr_fast.runtime.process.main import run_door
    from mclr_fast.training.snapshots import write_reconstructions

    def work(ranks, stop) -> None:
        if ranks.is_main:
            for path, error in write_reconstructions(config.run, config.std, config.out, config.images):
                print(f"{path}  error of the profile {error:.2%}")

    return run_door("cpu", work)


if __name__ == "__main__":
    sys.exit(main())
