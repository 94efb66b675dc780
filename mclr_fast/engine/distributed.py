"""The ranks of a run: one process or torchrun's, gloo on CPU and NCCL on GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, sharing its memory; any other tensor itself."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Ranks:
    """This process's place among the ranks, and the few collectives a run needs.

    Attributes: rank, size; device this rank computes on; is_main (rank 0 writes and prints).
    """

    def __init__(self, device: str = "auto"):
        """device: "cpu", "cuda" or "auto" (cuda where there is one); reads torchrun's environment."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            device = f"cuda:{torch.cuda.current_device()}"
        self.device = torch.device(device)
        self.is_main = self.rank == 0
        if self.size > 1:
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=30))

    def rows(self, num_rows: int) -> slice:
        """This rank's contiguous share of num_rows; sizes differ by at most one."""
        return slice(num_rows * self.rank // self.size, num_rows * (self.rank + 1) // self.size)

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

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Concatenate every rank's share of rows (as `rows()` cuts them), on the CPU, on all ranks."""
        rows = rows.cpu()
        if self.size == 1:
            return rows
        parts: list[Tensor | None] = [None] * self.size
        dist.all_gather_object(parts, rows)
        return torch.cat(parts)

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

    def wait(self) -> None:
        """Wait for all ranks: before leaving, so that none closes connections another still uses."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
