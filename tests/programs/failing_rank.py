"""A door of several ranks one of which fails: `failing_rank.py CASE RANK`, which shows a bar meanwhile."""

import os
import signal
import sys
import time

import torch

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.main import run_door
from mclr_fast.runtime.stages import progress_bar

STEPS = 3


def fail(case, rank):
    """What happens to the rank."""
    if case == "bug":
        raise KeyError("a bug")
    if case == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RunError(f"image {rank} of rank {rank}\nis damaged.")


def main(case, victim):
    def work(ranks, stop):
        with progress_bar("steps", STEPS, 0, ranks.is_main) as bar:
            for step in range(STEPS):
                if step == 1 and (case == "all" or ranks.rank == int(victim)):
                    fail(case, ranks.rank)
                if case == "reads":  # far from any collective when the other fails
                    time.sleep(0.2)
                    stop.check()
                ranks.sum(torch.ones(1))
                bar.update(1)

    return run_door("cpu", work)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
