"""A proof: the same run with several seeds, each best checkpoint judged on samples that chose nothing."""

from __future__ import annotations

from dataclasses import replace

from mclr_fast.config import RunConfig
from mclr_fast.evaluation import bootstrap_frechet_difference, feature_statistics
from mclr_fast.evaluation.evaluator import Evaluation, Evaluator
from mclr_fast.models import load
from mclr_fast.reports.run_page import write_report
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest

from .checks import check_options
from .claim import claim_outdir
from .run import Run


def prove(config: RunConfig, ranks: Ranks, stop: StopRequest) -> dict:
    """Run every seed under outdir/seed-<s>, judge, write summary.json and report.html."""
    outdir = config.folder
    check_options(config, ranks.size)
    ranks.on_main(claim_outdir, outdir, config)
    arm = config.objective.objective
    results, seconds = [], 0.0
    for seed in config.proof_seeds:
        single = replace(config, seed=seed, outdir=outdir / f"seed-{seed}", proof_seeds=())
        run = Run(single, ranks, stop)
        summary = run.execute().to_json()
        judge = run.final_evaluator()
        reference = feature_statistics(judge.protocol.reference.features)
        base = judge.evaluate(run.base_on_device(), "base", "base")
        control = judge_best(judge, run, "denoising", seed, "best-denoising", summary)
        tuned = judge_best(judge, run, arm, seed, "best", summary)
        result = {
            "seed": seed,
            "base": base.row.to_json(),
            "denoising": {**control.row.to_json(), "name": "denoising"},
            arm: {**tuned.row.to_json(), "name": arm},
        }
        for name, other in (("base", base), ("denoising", control)):
            difference = bootstrap_frechet_difference(tuned.features, other.features, *reference)
            result[f"fd_minus_{name}"] = list(difference)
        result["passed"] = all(
            result[f"fd_minus_{name}"][2] < 0
            and all(tuned.row.chosen[metric] > other.row.chosen[metric] for metric in ("is", "precision"))
            for name, other in (("base", base), ("denoising", control))
        )
        say(ranks.is_main, _line(result))
        results.append(result)
        seconds += summary["seconds"]

    rows = [judge.real_row().to_json(), base.row.to_json()]
    rows += [result[name] for name in ("denoising", arm) for result in results]
    summary = {
        **summary,
        "recipe": config.recipe,
        "seed": None,
        "seconds": seconds,
        "rows": rows,
        "best": min((result[arm] for result in results), key=lambda row: row["fd"]),
        "turned_at": None,
        "stopped": None,
        "grid_seeds": None,
        "comparison": {},
        "protocol": judge.description(),
        "proof": results,
    }
    ranks.on_main(write_json, outdir / "summary.json", summary)
    ranks.on_main(write_report, outdir)
    return summary


def judge_best(judge: Evaluator, run: Run, arm: str, seed: int, folder: str, summary: dict) -> Evaluation:
    """Evaluate the best checkpoint of one of a run's arms on the judge's seeds."""
    chosen = min((row for row in summary["rows"] if row["name"] == arm), key=lambda row: row["fd"])
    net = load(run.outdir / "checkpoints" / folder, dtype=run.base.dtype).to(run.ranks.device)
    return judge.evaluate(net, f"{arm}-seed{seed}", chosen["kind"], chosen["images_seen"])


def _line(result: dict) -> str:
    parts = []
    for name in ("base", "denoising"):
        difference, low, high = result[f"fd_minus_{name}"]
        parts.append(f"FD - FD({name}) = {difference:+.4f} [{low:+.4f}, {high:+.4f}]")
    verdict = "passed" if result["passed"] else "not passed"
    return f"seed {result['seed']}: {'; '.join(parts)}: {verdict}"
