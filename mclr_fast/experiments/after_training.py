"""What is judged once training is over: the best model under guidance and on its dial, and the final rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mclr_fast.evaluation.evaluator import Evaluation, Evaluator
from mclr_fast.evaluation.rows import Kind, Row, lowest_fd
from mclr_fast.models import interpolate, load

from .arms.arm import Outcome
from .identity.provenance import add_metrics

if TYPE_CHECKING:
    from .run import Run


def after_training(run: Run, judge: Evaluator, trained: Outcome) -> list[Evaluation]:
    """The best model under guidance (the paper's section 6.2), then between the base and it, and beyond."""
    if trained.best is None:
        return []
    options, best = run.config.eval, trained.best.row
    asked: list[tuple[str, Kind, dict[str, float]]] = []
    if run.judging.can_guide:
        guided = f"{best.name}-{run.judging.model.family.guided}"
        asked += [(f"{guided}-{g:g}", "guided", {"guidance": g}) for g in options.best_cfg_scales]
    asked += [(f"{best.name}-strength-{s:g}", "dial", {"strength": s}) for s in options.dial]
    if not asked:
        return []
    tuned, made = best_model(run, best), []
    for name, kind, strengths in asked:
        net = tuned
        if kind == "dial":
            net = interpolate(run.base_on_device(), tuned, strengths["strength"])
        made.append(judge.evaluate(net, name, kind, best.images_seen, **strengths))
        run.watch.row(made[-1].row)
    run.judging.release_guide()
    return made


def final_rows(run: Run, rows: Sequence[Row]) -> list[Row]:
    """The rows to compare with other work's: more samples, of seeds that chose nothing; [] where not asked.

    Those of the base, of guidance at its best FD, of the control, of the best model, and of that one under
    guidance at its best FD.
    """
    seeds = run.judging.final_seeds
    if not seeds:
        return []
    run.watch.say(f"final rows: {len(seeds):,} samples, seeds {seeds[0]:,} to {seeds[-1]:,}")
    judge = run.evaluator(seeds, run.outdir / "evaluations" / "final")
    found = []
    for row, net in _judged_at_the_end(run, rows):
        guidance = row.guidance if row.kind in ("guidance", "guided") else None
        made = judge.evaluate(net, row.name, row.kind, row.images_seen, guidance=guidance)
        run.watch.row(made.row)
        found.append(made.row)
        if row.kind in ("control", "trained"):
            run.ranks.on_main(add_metrics, best_folder(run, row), made.row, seeds)
    run.judging.release_guide()
    return found


def _judged_at_the_end(run: Run, rows: Sequence[Row]) -> Iterator[tuple[Row, nn.Module]]:
    """The rows of lowest FD of each kind, and their networks on the device."""
    base = run.base_on_device()
    for kind in ("base", "guidance"):
        if (row := lowest_fd(rows, kind)) is not None:
            yield row, base
    if (row := lowest_fd(rows, "control")) is not None:
        yield row, best_model(run, row)
    if (row := lowest_fd(rows, "trained")) is not None:
        tuned = best_model(run, row)
        yield row, tuned
        if (row := lowest_fd(rows, "guided")) is not None:
            yield row, tuned


def best_model(run: Run, row: Row) -> nn.Module:
    """The best checkpoint of the arm that this row is of, on the run's device, as the run computes it."""
    dtype = run.model.family.dtype(run.base)
    return load(best_folder(run, row), dtype=dtype).to(run.ranks.device)


def best_folder(run: Run, row: Row) -> Path:
    """Where that checkpoint is kept."""
    return run.outdir / "checkpoints" / ("best" if row.kind == "trained" else f"best-{row.name}")
