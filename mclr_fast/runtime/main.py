"""What the doors share: ranks and signals around a piece of work, one line and a code for its end."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from .errors import Interrupted, RunError
from .host_memory import keep_freed_memory
from .ranks import Ranks
from .signals import StopRequest


def run_door(device: str, work: Callable[[Ranks, StopRequest], None]) -> int:
    """Run work(ranks, stop) -> exit code: 0; 1 after one line on stderr; 143 when told to stop."""
    stop = StopRequest()
    try:
        ranks = Ranks(device)
    except RunError as error:
        return fail(error)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    try:
        work(ranks, stop)
        ranks.wait()
    except RunError as error:
        return fail(error) if ranks.is_main else 1
    except Interrupted:
        if ranks.is_main:
            print("stopped; run the same command again to go on.")
        return 143
    finally:
        ranks.close()
    return 0


def fail(error: Exception) -> int:
    """Print one line and give the exit code of a mistake.

    torchrun follows it with a report of its own; there too the line is made the last words.
    """
    line = " ".join(str(error).split())
    print(f"error: {line}", file=sys.stderr)
    if dist.is_torchelastic_launched():
        try:
            raise RunError(line) from None  # from here, so that its own traceback is not shown
        except RunError as bare:
            get_error_handler().record_exception(bare)
    return 1
