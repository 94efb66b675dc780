"""The ranks of a run: one process or torchrun's, gloo on CPU and NCCL on GPU."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from ..errors import RunError
from .last_words import LastWords
from .launch import ALONE, Launch, launched


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, sharing its memory; any other tensor itself."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()


def choose_device(name: str, place: Launch) -> torch.device:
    """The device of --device: "cpu", "cuda", "auto" (cuda where there is one), or "cuda:1", that GPU.

    Errors    RunError, one line, for one that this process cannot have.
    """
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise RunError(f"--device {name} is none of auto, cpu, cuda and cuda:NUMBER.")
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if number and place.size > 1:
        raise RunError(f"--device {name} is for one process: with {place.size} ranks each takes its own GPU.")
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
        index = int(number) if number else place.local_rank
        if index < count:
            torch.cuda.set_device(index)
    except (RuntimeError, AssertionError) as error:  # no driver; a torch without CUDA
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise RunError(f"--device {name}: {reason}. Without a GPU: --device cpu.") from error
    if not place.local_known and place.size > 1 and count > 1:
        raise RunError(
            f"rank {place.rank} cannot tell which of {count} GPUs is its own: LOCAL_RANK is not set. Start "
            "the ranks with torchrun, or set it."
        )
    if index >= count:
        asked = f"--device {name}" if number else f"rank {place.rank} is LOCAL_RANK={index}"
        raise RunError(
            f"{asked}: torch finds {count} GPU(s) here, 0 to {count - 1}. Start a rank for each of them, or "
            "look at CUDA_VISIBLE_DEVICES."
        )
    return torch.device(f"cuda:{index}")


def _meet(backend: str, place: Launch) -> dist.Store:
    """Join the process group; the store that it met by. RunError where the ranks do not find each other."""
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if not dist.is_torchelastic_launched() and place.local_rank == 0:
        print(f"note: rank {place.rank} of {place.size} waits for the others at {where}.", file=sys.stderr)
    try:
        store = _store()
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.size, timeout=timedelta(minutes=30)
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RunError(
            f"rank {place.rank} of {place.size} could not meet the others at {where} (MASTER_ADDR, "
            f"MASTER_PORT): {reason}. Look at these and at the other ranks; {ALONE}."
        ) from error
    return store


def _store() -> dist.Store:
    """torchrun's store; after a restart with names of its own.

    torchrun keeps one store over restarts, and a rank would connect to where its neighbour was before
    (pytorch#135712). The count of restarts names them, on one node: on several, each counts its own.
    """
    store, _, _ = next(rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"restart-{restart}", store)
    return store


class Ranks:
    """This process's place among the ranks, and the few collectives a run needs.

    Attributes: rank, size; device this rank computes on; is_main (rank 0 writes and prints); last_words, of
    several ranks.
    """

    def __init__(self, device: str = "auto"):
        """device: as `choose_device` takes it; the place is torchrun's environment.

        Errors    RunError, one line, where that is no place, and where the ranks do not meet.
        """
        place = launched()
        self.rank, self.size = place.rank, place.size
        self.device = choose_device(device, place)
        self.is_main = self.rank == 0
        self._background_group: dist.ProcessGroup | None = None
        self._closing = contextlib.ExitStack()
        self.last_words: LastWords | None = None
        if self.size > 1:
            store = _meet("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo", place)
            start = torch.tensor([time.time_ns()])  # torchrun keeps a store over restarts
            dist.broadcast(start, src=0)
            self.last_words = LastWords(dist.PrefixStore(f"last-words-{start.item()}", store), place)

    def rows(self, num_rows: int) -> slice:
        """This rank's contiguous share of num_rows; sizes differ by at most one."""
        return slice(num_rows * self.rank // self.size, num_rows * (self.rank + 1) // self.size)

    def rounds(self, num_rows: int, batch_size: int) -> Iterator[tuple[range, range]]:
        """num_rows in rounds of one batch a rank: the places of each round, and of them this rank's.

        Shares are contiguous and in the order of ranks, so to gather every round is to have the rows in
        order. All ranks get every round, in the last one perhaps with no place of their own.
        """
        for first in range(0, num_rows, self.size * batch_size):
            places = range(first, min(first + self.size * batch_size, num_rows))
            yield places, places[self.rows(len(places))]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank rank 0's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value) -> list:
        """Every rank's value, in the order of ranks, on all ranks; they are pickled."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def gather_on_main(self, value) -> list:
        """Every rank's value, in the order of ranks, on rank 0; nothing on the others. They are pickled."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return values or []

    def on_main(self, function, *args):
        """Run function(*args) on rank 0 and give its result, or raise its exception, on all ranks."""
        outcome: list = [None, None]
        if self.is_main:
            try:
                outcome[0] = function(*args)
            except Exception as error:
                outcome[1] = error
        if self.size > 1:
            dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def first(self, value):
        """The first rank's value that is not None, on all ranks."""
        return next((value for value in self.gather(value) if value is not None), None)

    def background_group(self) -> dist.ProcessGroup | None:
        """A gloo group for threads beside the training; None for one process. Call on all ranks."""
        if self.size > 1 and self._background_group is None:
            self._background_group = dist.new_group(backend="gloo", timeout=timedelta(minutes=30))
        return self._background_group

    def at_close(self, function: Callable[[], None]) -> None:
        """Call `function()` before the ranks part."""
        self._closing.callback(function)

    def wait(self) -> None:
        """Wait for all ranks: before leaving, so that none closes connections another still uses."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group, after what `at_close` was told."""
        self._closing.close()
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
