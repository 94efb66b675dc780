"""What the doors share: ranks and signals around a piece of work, one line and a code for its end."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

import torch.distributed as dist

from ..device.host_memory import keep_freed_memory
from ..errors import Interrupted, InterruptedAtOnce, RunError
from .last_words import GRACE, is_lost, tell_torchrun, wait
from .launch import is_first_of_node
from .ranks import Ranks
from .signals import StopRequest


def run_door(device: str, work: Callable[[Ranks, StopRequest], None]) -> int:
    """Run work(ranks, stop) -> exit code: 0; 1 after one line on stderr; 143 when told to stop.

    Of several ranks the first that fails says its line, and the others nothing (`last_words`). What is no
    RunError keeps its traceback.
    """
    stop = StopRequest()
    try:
        ranks = Ranks(device)
    except RunError as error:
        return _say(error)
    except InterruptedAtOnce:
        return 143
    try:
        if ranks.device.type == "cpu":
            keep_freed_memory()
        work(ranks, stop)
        stop.look()
        ranks.wait()
    except (Exception, InterruptedAtOnce) as error:
        stop.look()
        return _end(Interrupted() if isinstance(error, InterruptedAtOnce) else error, ranks, stop)
    finally:
        ranks.close()
    return 0


def fail(error: Exception) -> int:
    """Say a mistake that all ranks find alike, before they meet; the code of a mistake.

    The first rank of a node says it; the others wait for torchrun to end them, which it does when it sees one
    end.
    """
    try:
        first = is_first_of_node()
    except RunError:
        first = True
    if first:
        return _say(error)
    time.sleep(GRACE)
    return 1


def _say(error: Exception | str) -> int:
    line = " ".join(str(error).split())
    print(f"error: {line}", file=sys.stderr)
    tell_torchrun(line)
    return 1


def _end(error: Exception, ranks: Ranks, stop: StopRequest) -> int:
    """The end of a rank whose work did not reach its own."""
    if ranks.last_words is not None:
        return _end_of_several(error, ranks, stop)
    if isinstance(error, Interrupted):
        return _stopped(ranks)
    if isinstance(error, RunError):
        return _say(error)
    tell_torchrun(_named(error))
    raise error


def _end_of_several(error: Exception, ranks: Ranks, stop: StopRequest) -> int:
    words, lost, mine = ranks.last_words, is_lost(error), False
    line = words.read() if lost or isinstance(error, Interrupted) else None
    if line is None and isinstance(error, Interrupted):
        return _stopped(ranks)
    if line is None and not lost:
        mine, line = words.claim(_own_line(error, ranks))
    if not mine and _ended_by_torchrun(stop):
        return 0  # its summary lists every rank that ends with another code, and the first one's is the run's
    if line is None:
        mine, line = words.claim(_own_line(error, ranks))
    if mine and not (lost or isinstance(error, RunError)):
        traceback.print_exception(error)
    if mine:
        _say(line)
    ranks.close()
    if not mine and ranks.is_main:  # after its bars: its output is what users look at
        _say(line)
    words.linger()
    return 1


def _ended_by_torchrun(stop: StopRequest) -> bool:
    """Whether torchrun tells this rank to stop, as it does soon after another has failed."""
    if dist.is_torchelastic_launched():
        wait(GRACE, until=lambda: stop.requested)
        return stop.requested
    return False


def _own_line(error: Exception, ranks: Ranks) -> str:
    if is_lost(error):
        reason = " ".join(str(error).split("This is typically")[0].split())
        return f"rank {ranks.rank} has lost another rank, which left no word ({reason}): look at its log."
    line = str(error) if isinstance(error, RunError) else f"rank {ranks.rank}: {_named(error)}"
    return " ".join(line.split())


def _stopped(ranks: Ranks) -> int:
    if ranks.is_main:
        print("stopped; run the same command again to go on.")
    return 143


def _named(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()
