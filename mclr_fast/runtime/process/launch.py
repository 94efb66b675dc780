"""What a launcher says of this process, in the environment: believed whole, or refused in one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import RunError

ALONE = "for one process alone unset RANK and WORLD_SIZE"


@dataclass(frozen=True)
class Launch:
    """This process's place: rank of size, and local_rank of local_size on its machine.

    local_known: whether a launcher gave the local rank.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    local_known: bool = False


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """The place that torchrun's variables give (default: this process's); a process alone without them.

    An empty variable is one that is not set. Without RANK and WORLD_SIZE the others are leftovers of some
    launcher, such as of a batch job's shell, and a process alone is meant. WORLD_SIZE=1 or RANK=0 may lack
    the other.

    Errors    RunError, one line, for a half of such a place, and for values that name none.
    """
    said = os.environ if environment is None else environment
    rank, size = _number(said, "RANK"), _number(said, "WORLD_SIZE")
    if rank is None and size is None:
        return Launch()
    if size is None and rank != 0:
        raise RunError(f"RANK={rank} without WORLD_SIZE, the number of ranks: set both, or {ALONE}.")
    if rank is None and size != 1:
        raise RunError(f"WORLD_SIZE={size} without RANK: torchrun sets both; {ALONE}.")
    rank, size = rank or 0, 1 if size is None else size
    if not 0 <= rank < size:
        raise RunError(f"RANK={rank} with WORLD_SIZE={size}: ranks are 0 to WORLD_SIZE - 1; {ALONE}.")
    if size > 1:
        _check_meeting_place(said, size)
    local_rank, local_size = _number(said, "LOCAL_RANK"), _number(said, "LOCAL_WORLD_SIZE")
    if local_size is not None and not 1 <= local_size <= size:
        raise RunError(
            f"LOCAL_WORLD_SIZE={local_size} with WORLD_SIZE={size}: at least 1, at most that many."
        )
    most = size if local_size is None else local_size
    if local_rank is not None and not 0 <= local_rank < most:
        raise RunError(
            f"LOCAL_RANK={local_rank} of {most} rank(s) on this machine: local ranks are 0 to {most - 1}."
        )
    return Launch(rank, size, local_rank or 0, local_size or 1, local_rank is not None)


def is_first_of_node() -> bool:
    """Whether this process is alone, or the first of its machine's ranks."""
    return launched().local_rank == 0


def _number(said: Mapping[str, str], name: str) -> int | None:
    text = said.get(name, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise RunError(f"{name}={text} is not a whole number: torchrun sets it; {ALONE}.")
    return int(text)


def _check_meeting_place(said: Mapping[str, str], size: int) -> None:
    """RunError unless MASTER_ADDR and MASTER_PORT say where the ranks meet."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not said.get(name, "").strip()]:
        raise RunError(
            f"WORLD_SIZE={size} without {' and '.join(missing)}, where the ranks meet: start them with "
            f"torchrun, or set it; {ALONE}."
        )
    if not 0 < (port := _number(said, "MASTER_PORT")) < 2**16:
        raise RunError(f"MASTER_PORT={port} is no port: 1 to 65535.")
