"""GPU-hours that a run takes, counted from its operations: a plan, before any GPU is there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mclr_fast.config import ObjectiveConfig, RunConfig
from mclr_fast.reports.table_summary import Settings
from mclr_fast.training.memory import StepMemory

from ..arms.work import work_of
from ..tables.cells import cell_config
from ..tables.table import every_setting


@dataclass(frozen=True)
class Cost:
    """GPU-hours.

    Attributes: training, of all arms and of the reference's energies that are made once; rows, of
    evaluations on the way and after; final rows; row, of one unguided sample.
    """

    training: float
    rows: float
    final: float
    row: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.rows + self.final


def cost_of(config: RunConfig, step: StepMemory) -> Cost:
    """Of one run, which goes to its end; a GPU makes `config.gpu_tflops`. step: of its objective.

    What guides is counted as a network of the run's size; extractors and decoders of latents are left out.
    """
    image, call = step.flops
    hours = 1 / (config.gpu_tflops * 1e12 * 3600)
    work = work_of(config)
    column, sample = image / step.num_columns, step.family.calls_a_sample(config.eval) * call
    training = sum(images * work.columns[arm] * column for arm, images in work.images.items())
    training += step.num_made * call
    return Cost(
        training * hours, work.samples * sample * hours, work.final_samples * sample * hours, sample * hours
    )


def planned_cost(config: RunConfig, step: StepMemory) -> tuple[Cost, str]:
    """The run's, or that of all runs of its table or proof, and how many those are, in words."""
    if config.table:
        return _cost_of_table(config, step)
    if config.proof_seeds:
        return _cost_of_proof(config, step), f" ({len(config.proof_seeds)} seeds)"
    return cost_of(config, step), ""


def cost_lines(config: RunConfig, step: StepMemory) -> Iterator[str]:
    """That in words."""
    cost, runs = planned_cost(config, step)
    yield (
        f"GPU-hours       {cost.total:.3g}{runs} = training {cost.training:.3g}, rows {cost.rows:.3g}, "
        f"final rows {cost.final:.3g}; at {config.gpu_tflops:g} TFLOP/s a GPU (--gpu-tflops)"
    )


def _cost_of_proof(config: RunConfig, step: StepMemory) -> Cost:
    """Of a run of every seed, whose base, control and trained model are judged on fresh samples."""
    seeds, cost = len(config.proof_seeds), cost_of(config, step)
    final = cost.final + 3 * config.proof_samples * cost.row
    return Cost(seeds * cost.training, seeds * cost.rows, seeds * final, cost.row)


def _cost_of_table(config: RunConfig, own: StepMemory) -> tuple[Cost, str]:
    """Of every run that is tried, and of the final ones as if the dearest settings were chosen.

    The base's rows under guidance are made once.
    """
    table, seeds, num_guided = config.table, config.proof_seeds, len(config.eval.cfg_scales)
    config = replace(config, eval=replace(config.eval, cfg_scales=()))
    # What an image costs depends on nothing else.
    steps: dict[tuple[ObjectiveConfig, int], StepMemory] = {}

    def cost(objective: str, settings: Settings, *, tried: bool) -> Cost:
        cell = cell_config(config, objective, settings, seeds[0], tried=tried)
        key = cell.objective, cell.train.duration
        if key not in steps:
            steps[key] = StepMemory(cell, own.model, own.num_images)
        return cost_of(cell, steps[key])

    tried = [cost(*cell, tried=True) for cell in every_setting(table["grid"], table["ablations"])]
    chosen = [
        max((cost(name, settings, tried=False) for settings in table["grid"][name]), key=lambda c: c.total)
        for name in table["grid"]
    ]
    # Each final run's best model is judged on fresh samples, and the base once, without and with guidance.
    judged = [replace(cost, final=cost.row * config.proof_samples) for cost in chosen]
    whole = [*tried, *(cost for cost in judged for _ in seeds)]
    base = 3 * judged[0].final
    guided = 2 * num_guided * config.eval.num_samples * judged[0].row
    total = Cost(
        math.fsum(c.training for c in whole),
        math.fsum(c.rows for c in whole) + guided,
        math.fsum(c.final for c in whole) + base,
        0.0,
    )
    return total, f" ({len(tried)} runs to try, {len(judged) * len(seeds)} final)"
