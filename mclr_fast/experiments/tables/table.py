"""A table: every objective at the best of its grid, over seeds, judged on samples that chose nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mclr_fast.config import RunConfig
from mclr_fast.evaluation.rows import Row
from mclr_fast.reports.summary import Summary, write_summary
from mclr_fast.reports.table_page import write_table_report
from mclr_fast.reports.table_summary import Ablation, Final, MethodResults, Settings, TableSummary, Tried
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from ..checks import check_options
from ..identity.claim import claim_outdir
from ..identity.fingerprints import fingerprints
from ..reporting import report
from .cells import Cells, Judged, OutOfTime


def make_table(config: RunConfig, ranks: Ranks, stop: StopRequest) -> TableSummary | None:
    """Run what is missing, cell by cell; the summary, or None at the end of the slice of time.

    `config.table`: "grid", by objective the settings tried on the first seed; "ablations", each one option
    of an objective varied with the others at the best of its grid, as {"figure", "objective", "option",
    "values", "chooses": whether these values are part of the grid}; "tried", the evaluation options of both,
    and "tried_train", their training options, where those are others.
    The best of what was tried of each objective is run with every seed, and each run's best checkpoint judged
    on samples whose seeds chose nothing.

    Any number of processes may run the same command at once: they share the runs.
    """
    check_options(config, ranks.size)
    cells = Cells(config, ranks, stop)
    for objective, settings in every_setting(config.table["grid"], config.table["ablations"]):
        cells.config_of(objective, settings, config.proof_seeds[0], tried=True)
    # What is done of a table is read and not gone on with, so it cannot grow.
    ranks.on_main(lambda: claim_outdir(config.folder, config, fingerprints(config), may_grow=False))
    try:
        while (parts := gather(cells)) is None:
            pass
    except OutOfTime:
        say(
            ranks.is_main,
            f"{cells.num_done} runs are done, {cells.seconds / 60:.0f} minutes in all; run the same command "
            "again to go on.",
        )
        return None
    with cells.once("summary"):
        summary = _summary(cells, parts)
        ranks.on_main(write_summary, config.folder, summary)
        report(write_table_report, config.folder, ranks)
    return summary


def gather(cells: Cells) -> Parts | None:
    """One round of the cells: what the summary is made of; None while other processes make some of it.

    An objective's ablations need all of its grid, its final runs the ablations that choose too, and neither
    needs anything of the other objectives.
    """
    cells.start_over()
    num_made, seeds = cells.num_made, cells.config.proof_seeds
    grid, ablations = cells.config.table["grid"], cells.config.table["ablations"]
    tried = {name: [_try(cells, name, settings, seeds[0]) for settings in grid[name]] for name in grid}
    best = {name: _best(found) for name, found in tried.items() if None not in found}
    varied = [
        (plan, best[plan["objective"]], _vary(cells, plan, best[plan["objective"]], seeds[0]))
        for plan in ablations
        if plan["objective"] in best
    ]
    for plan, _, entries in varied:
        tried[plan["objective"]] += entries if plan["chooses"] else []
    best = {name: _best(found) for name, found in tried.items() if name in best and None not in found}
    runs = {name: [cells.final(name, best[name], seed) for seed in seeds] for name in best}
    if cells.num_elsewhere == 0:
        done = [Ablation(**plan, settings=settings, runs=entries) for plan, settings, entries in varied]
        return Parts(tried, done, runs, best)
    if cells.num_made == num_made:
        cells.wait()
    return None


class Parts(NamedTuple):
    """By objective what was tried, its final runs and their settings; and the ablations."""

    tried: Mapping[str, Sequence[Tried]]
    varied: Sequence[Ablation]
    runs: Mapping[str, Sequence[Judged]]
    chosen: Mapping[str, Settings]


def _best(found: Iterable[Tried]) -> Settings:
    return min(found, key=lambda entry: entry.fd).settings


def every_setting(grid: dict[str, list[Settings]], ablations: list[dict]) -> list[tuple[str, Settings]]:
    """Every objective with settings that a table may run, so that all can be checked before the first run."""
    varied = [
        (ablation["objective"], settings | {ablation["option"]: value})
        for ablation in ablations
        for settings in grid[ablation["objective"]]
        for value in ablation["values"]
    ]
    return [(name, settings) for name in grid for settings in grid[name]] + varied


def _try(cells: Cells, objective: str, settings: Settings, seed: int) -> Tried | None:
    summary = cells.tried(objective, settings, seed)
    if summary is None:
        return None
    return Tried(settings, summary.best.fd, _own_rows(summary), summary.stopped, summary.seconds)


def _vary(cells: Cells, plan: dict[str, Any], settings: Settings, seed: int) -> list[Tried | None]:
    """The runs of an ablation."""
    return [
        _try(cells, plan["objective"], settings | {plan["option"]: value}, seed) for value in plan["values"]
    ]


def _distinct(found: Iterable[Tried]) -> list[Tried]:
    """Without repetitions: an ablation's values include one that the grid has."""
    first: list[Tried] = []
    for entry in found:
        if all(entry.rows != other.rows for other in first):
            first.append(entry)
    return first


def _own_rows(summary: Summary) -> list[Row]:
    """The base's row and the run's own, over training."""
    return summary.of("base", "trained")


def _summary(cells: Cells, parts: Parts) -> TableSummary:
    config = cells.config
    name, (one, *_) = next(iter(parts.runs.items()))
    guided = one.summary.of("guidance")
    guidance = min(guided, key=lambda row: row.fd).guidance if guided else None
    base = cells.judged_base((name, parts.chosen[name], config.proof_seeds[0]), guidance)
    all_runs = [run for runs in parts.runs.values() for run in runs]
    judged = [run.judged for run in all_runs]
    return TableSummary(
        recipe=config.recipe,
        seeds=list(config.proof_seeds),
        images_seen=config.train.duration,
        seconds=cells.seconds,
        rows=[*one.summary.of("real"), *base, *judged],
        guided=guided,
        methods={objective: _method(parts, objective) for objective in parts.runs},
        ablations=parts.varied,
        classifier=next((run.summary.classifier for run in all_runs if run.summary.classifier), None),
        best=min(judged, key=lambda row: row.fd),
        protocol=one.summary.protocol,
        judged_on=[config.proof_first_seed, config.proof_first_seed + config.proof_samples - 1],
        versions=one.summary.versions,
    )


def _method(parts: Parts, objective: str) -> MethodResults:
    runs = parts.runs[objective]
    final = [
        Final(run.summary.seed, run.judged, _own_rows(run.summary), run.summary.stopped, run.seconds)
        for run in runs
    ]
    return MethodResults(
        parts.chosen[objective], runs[0].summary.settings, _distinct(parts.tried[objective]), final
    )
