"""What a run writes, counted from its options: states, models, snapshots, samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mclr_fast.config import RunConfig
from mclr_fast.runtime.disk import free_bytes
from mclr_fast.training.memory import StepMemory

from ..arms.arm import control_plan, trained_plan
from ..identity.claim import nearest_folder

GB = 1e9
FLOAT = 4  # bytes of a number: states and models are float32


@dataclass(frozen=True)
class DiskUse:
    """Bytes in a run's folder when it is fullest.

    Attributes:
        state: of one saved state; num_states: those there at once, of all arms, one being written among them.
        model: of one model; num_models: best ones, last ones, and those of milestones.
        num_snapshots: averages kept as models.
        samples: of models' samples that are trained on, uncompressed.
    """

    state: int
    num_states: int
    model: int
    num_models: int
    num_snapshots: int
    samples: int

    @property
    def total(self) -> int:
        """All of it."""
        models = self.model * (self.num_models + self.num_snapshots)
        return self.state * self.num_states + models + self.samples


def disk_use(config: RunConfig, step: StepMemory) -> DiskUse:
    """Of one run. Logs, pictures and evaluations are left out: they are small beside a model."""
    train, judged = config.train, config.is_judged
    refreshes = step.method.needs_reference or step.method.uses_samples
    trained = trained_plan(config, judged=judged, refreshes=refreshes)
    control = control_plan(config, judged=judged)
    plans = [trained, *([control] if control else [])]
    num_averages = len(train.ema_stds) if train.ema == "power" else 1
    whole = FLOAT * sum(p.numel() for p in step.net.parameters())
    moved = FLOAT * sum(p.numel() for p in step.trained)
    saves = -(-train.duration // train.checkpoint_every) if train.checkpoint_every else 0
    num_states = 1  # being written, before an older one goes
    for plan in plans:
        marks = sum(mark.evaluate for mark in plan.marks)
        num_states += min(train.keep_checkpoints + judged, max(marks, saves))
    facts = step.model.facts
    rounds = 1 + sum(mark.new_round for mark in trained.marks)
    sets = rounds * step.method.uses_samples + (config.objective.positives in ("base", "best"))
    return DiskUse(
        state=whole + moved * (2 + num_averages),
        num_states=num_states,
        model=whole,
        num_models=sum(1 + judged for _ in plans) + sum(mark.milestone for mark in trained.marks),
        num_snapshots=num_averages * sum(mark.snapshot for mark in trained.marks),
        samples=sets * config.objective.model_samples * math.prod(facts.shape) * facts.dtype.itemsize,
    )


def disk_lines(config: RunConfig, step: StepMemory) -> Iterator[str]:
    """That in words, beside the room there is; of a table that of each of its runs."""
    use, place = disk_use(config, step), nearest_folder(config.folder)
    parts = [f"{use.num_states} states of {_size(use.state)}"]
    parts.append(f"{use.num_models} models of {_size(use.model)}")
    if use.num_snapshots:
        parts.append(f"{use.num_snapshots} snapshots of {_size(use.model)}")
    if use.samples:
        parts.append(f"samples {_size(use.samples)}")
    free = free_bytes(place)
    room = "" if free is None else f"; {_size(free)} free at {place}"
    each = " for each run of the table" if config.table else ""
    yield f"disk            {_size(use.total)} at most{each} = {' + '.join(parts)}{room}"
    if free is not None and use.total > free:
        yield (
            f"note            that is more than is free: choose another --outdir, or keep less "
            f"(--keep-checkpoints {config.train.keep_checkpoints}, --milestone-every, --ema-snapshot-every)"
        )


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:.3g} GB" if num_bytes >= 0.1 * GB else f"{num_bytes / 1e6:.3g} MB"
