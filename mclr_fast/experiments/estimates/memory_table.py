"""Tables of the memory that steps need, and the refusal of those that no GPU of a size can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

import torch

from mclr_fast.config import RunConfig
from mclr_fast.models import Model, describe
from mclr_fast.runtime.errors import RunError
from mclr_fast.training.memory import GIB, Memory, StepMemory
from mclr_fast.training.placement import shards

GPUS = (1, 8, 64)
NEGATIVES = (1, 3, 7)
# Kept back of a GPU: the CUDA context, NCCL's and cuDNN's own buffers, gaps between blocks. An assumption.
KEPT_BACK, KEPT_SHARE = 2 * GIB, 0.05


def usable(gib: float) -> float:
    """Bytes that a run may plan with on a GPU of so many GiB (0: of the GPU here, or 80)."""
    if not gib:
        gib = torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else 80
    return (1 - KEPT_SHARE) * gib * GIB - KEPT_BACK


def check_memory(step: StepMemory, num_gpus: int, gib: float) -> None:
    """RunError, naming the largest micro-batch that fits, when the run's own does not."""
    micro_batch, available = step.config.train.micro_batch, usable(gib)
    needed = step.of(num_gpus, micro_batch).total
    if needed <= available:
        return
    largest = step.largest(num_gpus, available)
    mend = f"the largest that fits is --micro-batch {largest}"
    if not largest:
        mend = "none fits: use a GPU with more"
        if not shards(step.net, num_gpus, step.config.train.sharding):
            mend = "none fits: shard over more GPUs (--sharding shard), or use one with more"
    raise RunError(
        f"--micro-batch {micro_batch} needs {needed / GIB:.1f} GiB on each of {num_gpus} GPU(s), of which "
        f"{max(available, 0) / GIB:.1f} GiB can be planned with (--gpu-memory-gib): {mend}."
    )


def memory_lines(step: StepMemory, num_gpus: int, gib: float) -> Iterator[str]:
    """The run's own settings on its own and on other numbers of GPUs, part by part."""
    parts, dtype = [field.name for field in fields(Memory)], str(step.dtype)[6:]
    yield f"memory          GiB a GPU, in {dtype}; {usable(gib) / GIB:.1f} can be planned with"
    yield "  GPUs  placed   " + "".join(f"{part:>13}" for part in [*parts, "total"])
    for count in sorted({num_gpus, *GPUS}):
        if count > step.config.train.batch_size:
            continue
        memory = step.of(count, step.config.train.micro_batch)
        sizes = [getattr(memory, part) for part in [*parts, "total"]]
        note = "" if memory.total <= usable(gib) else "  does not fit"
        yield f"  {count:>4}  {_placed(step, count)}" + "".join(f"{x / GIB:>13.2f}" for x in sizes) + note


def preset_lines(configs: Iterable[RunConfig], gib: float) -> Iterator[str]:
    """Every recipe at several K and numbers of GPUs: GiB a GPU, and the largest micro-batch that fits."""
    yield (
        "GiB a GPU at the recipe's micro-batch, in bfloat16; whole or sharded; the largest micro-batch, in "
        f"evaluations, within {usable(gib) / GIB:.1f} GiB"
    )
    heads = (f"{f'{count} GPU(s)':^28}" for count in GPUS)
    yield f"{'recipe':18}{'parameters':>11}{'K':>4}{'micro-batch':>13}  " + "".join(heads)
    for config in configs:
        model = Model.of(describe(config.net, config.family))
        for num_negatives in NEGATIVES:
            objective = replace(config.objective, num_negatives=num_negatives)
            step = StepMemory(replace(config, objective=objective), model)
            size = f"{sum(p.numel() for p in step.net.parameters()) / 1e6:,.0f}M"
            line = f"{config.recipe:18}{size:>11}{num_negatives:>4}{config.train.micro_batch:>13}  "
            for count in GPUS:
                total = step.of(count, config.train.micro_batch).total / GIB
                largest = step.largest(count, usable(gib)) or "none"
                line += f"{total:>9.1f}  {_placed(step, count)}  {largest:>6}  "
            yield line


def _placed(step: StepMemory, num_gpus: int) -> str:
    return "sharded" if shards(step.net, num_gpus, step.config.train.sharding) else "whole  "
