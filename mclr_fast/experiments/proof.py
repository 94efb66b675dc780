"""A proof: the same run with several seeds, each best checkpoint judged on samples that chose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from mclr_fast.config import RunConfig
from mclr_fast.evaluation.evaluator import Evaluation, Evaluator
from mclr_fast.evaluation.protocols import PROTOCOLS
from mclr_fast.evaluation.rows import Row, lowest_fd
from mclr_fast.reports.run_page import write_report
from mclr_fast.reports.summary import Interval, SeedResult, Summary, write_summary
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.locks import owned, refuse_if_owned
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from .after_training import best_folder, best_model
from .arms.arm import control_plan
from .checks import check_options
from .identity.claim import claim_outdir, lock_of
from .identity.fingerprints import fingerprints
from .identity.provenance import add_metrics
from .judging import judging_protocols
from .reporting import report
from .run import Run

BETTER = ("is", "precision")
"""What must be higher than the base's and the control's, beside the lower FD."""


class SeedRun(NamedTuple):
    """What the run of one seed gives a proof: its judgement, its own summary, and how it was judged."""

    result: SeedResult
    summary: Summary
    real: Row
    protocol: dict[str, Any]


def prove(config: RunConfig, ranks: Ranks, stop: StopRequest) -> Summary:
    """Run every seed under outdir/seed-<s>, judge, write summary.json and report.html."""
    outdir = config.folder
    check_options(config, ranks.size)
    check_comparable(config)
    ranks.on_main(refuse_if_owned, lock_of(outdir), outdir)
    ranks.on_main(lambda: claim_outdir(outdir, config, fingerprints(config)))
    with owned(lock_of(outdir), outdir, ranks):
        return _prove(config, ranks, stop)


def _prove(config: RunConfig, ranks: Ranks, stop: StopRequest) -> Summary:
    runs, outdir = [], config.folder
    for seed in config.proof_seeds:
        single = replace(config, seed=seed, outdir=outdir / f"seed-{seed}", proof_seeds=())
        runs.append(prove_seed(single, ranks, stop))
        say(ranks.is_main, _line(runs[-1].result))
    summary = summarize(config.recipe, runs)
    ranks.on_main(write_summary, outdir, summary)
    report(write_report, outdir, ranks)
    return summary


def check_comparable(config: RunConfig) -> None:
    """RunError where there is nothing to compare with."""
    if not config.is_judged or config.init is None:
        raise RunError(
            "--proof-seeds compares FDs with the base's: it needs a recipe with a protocol, --init, and "
            "--eval-every above 0."
        )
    if not any(PROTOCOLS[name].has_intervals for name in judging_protocols(config)):
        raise RunError(
            f"--proof-seeds needs an interval for each difference of FDs, and --protocol {config.protocol} "
            "has too many features for one: run every --seed, and lay the runs over each other (python -m "
            "mclr_fast.report RUN RUN)."
        )
    if control_plan(config, judged=True) is None:
        raise RunError(
            "--proof-seeds compares with the denoising control: it needs --control last or all, and an "
            "--objective other than denoising."
        )


def prove_seed(config: RunConfig, ranks: Ranks, stop: StopRequest) -> SeedRun:
    """The run of one seed, and the judgement of its best checkpoints."""
    run = Run(config, ranks, stop)
    summary = run.execute()
    judge = run.final_evaluator()
    base = judge.evaluate(run.base_on_device(), "base", "base")
    control = judge_best(judge, run, "control", summary)
    trained = judge_best(judge, run, "trained", summary)
    minus_base, minus_control = (judge.difference(trained, other) for other in (base, control))
    result = SeedResult(
        seed=config.seed,
        base=base.row,
        control=replace(control.row, name=best_row(summary, "control").name),
        trained=replace(trained.row, name=best_row(summary, "trained").name),
        fd_minus_base=minus_base,
        fd_minus_control=minus_control,
        passed=is_better(trained.row, base.row, minus_base)
        and is_better(trained.row, control.row, minus_control),
    )
    return SeedRun(result, summary, judge.real_row(), judge.description())


def summarize(recipe: str, runs: Sequence[SeedRun]) -> Summary:
    """The proof's summary: all judged rows; what all seeds share as the last one has it."""
    last, results = runs[-1], [run.result for run in runs]
    trained = [result.trained for result in results]
    return replace(
        last.summary,
        recipe=recipe,
        seed=None,
        seconds=sum(run.summary.seconds for run in runs),
        rows=[last.real, last.result.base, *(result.control for result in results), *trained],
        best=min(trained, key=lambda row: row.fd),
        turned_at=None,
        stopped=None,
        grid_seeds=None,
        comparison={},
        protocol=last.protocol,
        proof=results,
    )


def judge_best(
    judge: Evaluator, run: Run, kind: Literal["control", "trained"], summary: Summary
) -> Evaluation:
    """Evaluate the best checkpoint of one of a run's arms on the judge's seeds."""
    best = best_row(summary, kind)
    name = f"{best.name}-seed{summary.seed}"
    made = judge.evaluate(best_model(run, best), name, kind, best.images_seen)
    run.ranks.on_main(add_metrics, best_folder(run, best), made.row, judge.seeds)
    return made


def best_row(summary: Summary, kind: Literal["control", "trained"]) -> Row:
    """The row of lowest FD of one of a run's arms."""
    return lowest_fd(summary.rows, kind)


def is_better(row: Row, other: Row, difference: Interval) -> bool:
    """Whether FD is lower with its whole interval, and IS and precision higher."""
    return difference[2] < 0 and all(row.values[metric] > other.values[metric] for metric in BETTER)


def _line(result: SeedResult) -> str:
    parts = []
    against = ((result.base, result.fd_minus_base), (result.control, result.fd_minus_control))
    for other, interval in against:
        difference, low, high = interval
        parts.append(f"FD - FD({other.name}) = {difference:+.4f} [{low:+.4f}, {high:+.4f}]")
    verdict = "passed" if result.passed else "not passed"
    return f"seed {result.seed}: {'; '.join(parts)}: {verdict}"
