"""A table: every objective at the best of its grid, over seeds, judged on samples that chose nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from mclr_fast.config import RunConfig
from mclr_fast.reports.table_page import write_table_report
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest

from .cells import Cells, OutOfTime, Settings
from .checks import check_options
from .claim import claim_outdir


def make_table(config: RunConfig, ranks: Ranks, stop: StopRequest) -> dict | None:
    """Run what is missing, cell by cell; the summary, or None at the end of the slice of time.

    `config.table`: "grid", by objective the settings tried on the first seed; "ablations", each one option
    of an objective varied with the others at the best of its grid, as {"figure", "objective", "option",
    "values", "chooses": whether these values are part of the grid}; "tried", the evaluation options of both.
    The best of what was tried of each objective is run with every seed, and each run's best checkpoint judged
    on samples whose seeds chose nothing.

    Any number of processes may run the same command at once: they share the runs.
    """
    check_options(config, ranks.size)
    cells = Cells(config, ranks, stop)
    for objective, settings in every_setting(config.table["grid"], config.table["ablations"]):
        cells.config_of(objective, settings, config.proof_seeds[0], tried=True)
    ranks.on_main(claim_outdir, config.folder, config)
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
        ranks.on_main(write_json, config.folder / "summary.json", summary)
        ranks.on_main(write_table_report, config.folder)
    say(ranks.is_main, f"report: {config.folder / 'report.html'}")
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
    varied = [_vary(cells, a, best[a["objective"]], seeds[0]) for a in ablations if a["objective"] in best]
    for ablation in varied:
        tried[ablation["objective"]] += ablation["runs"] if ablation["chooses"] else []
    best = {name: _best(found) for name, found in tried.items() if name in best and None not in found}
    runs = {name: [cells.final(name, best[name], seed) for seed in seeds] for name in best}
    if cells.num_elsewhere == 0:
        return Parts(tried, varied, runs, best)
    if cells.num_made == num_made:
        cells.wait()
    return None


class Parts(NamedTuple):
    """By objective what was tried, its final runs and their settings; and the ablations."""

    tried: dict[str, list[dict]]
    varied: list[dict]
    runs: dict[str, list[dict]]
    chosen: dict[str, Settings]


def _best(found: list[dict]) -> Settings:
    return min(found, key=lambda entry: entry["fd"])["settings"]


def every_setting(grid: dict[str, list[Settings]], ablations: list[dict]) -> list[tuple[str, Settings]]:
    """Every objective with settings that a table may run, so that all can be checked before the first run."""
    varied = [
        (ablation["objective"], settings | {ablation["option"]: value})
        for ablation in ablations
        for settings in grid[ablation["objective"]]
        for value in ablation["values"]
    ]
    return [(name, settings) for name in grid for settings in grid[name]] + varied


def _try(cells: Cells, objective: str, settings: Settings, seed: int) -> dict[str, Any] | None:
    summary = cells.tried(objective, settings, seed)
    return summary and {
        "settings": settings,
        "fd": summary["best"]["fd"],
        "rows": _own_rows(summary),
        "stopped": summary["stopped"],
        "seconds": summary["seconds"],
    }


def _vary(cells: Cells, ablation: dict[str, Any], settings: Settings, seed: int) -> dict[str, Any]:
    entries = [
        _try(cells, ablation["objective"], settings | {ablation["option"]: value}, seed)
        for value in ablation["values"]
    ]
    return {**ablation, "settings": settings, "runs": entries}


def _distinct(found: list[dict]) -> list[dict]:
    """Without repetitions: an ablation's values include one that the grid has."""
    first: dict[str, dict] = {}
    for entry in found:
        first.setdefault(str(entry["rows"]), entry)
    return list(first.values())


def _own_rows(summary: dict) -> list[dict]:
    """The base's row and the run's own, over training."""
    return [row for row in summary["rows"] if row["name"] in ("base", summary["objective"])]


def _summary(cells: Cells, parts: Parts) -> dict:
    tried, varied, runs, chosen = parts
    config, name = cells.config, next(iter(runs))
    one = runs[name][0]["summary"]
    guided = [row for row in one["rows"] if row["name"].startswith("cfg-")]
    guidance = float(min(guided, key=lambda row: row["fd"])["name"].removeprefix("cfg-"))
    base = cells.judged_base((name, chosen[name], config.proof_seeds[0]), guidance)
    methods = {
        objective: {
            "settings": chosen[objective],
            "formula": entries[0]["summary"]["settings"],
            "grid": _distinct(tried[objective]),
            "runs": [
                {
                    "seed": entry["summary"]["seed"],
                    "judged": entry["judged"],
                    "curve": _own_rows(entry["summary"]),
                    "stopped": entry["summary"]["stopped"],
                    "seconds": entry["seconds"],
                }
                for entry in entries
            ],
        }
        for objective, entries in runs.items()
    }
    all_runs = [entry for entries in runs.values() for entry in entries]
    judged = [entry["judged"] for entry in all_runs]
    return {
        "recipe": config.recipe,
        "objective": "table",
        "seeds": list(config.proof_seeds),
        "images_seen": config.train.duration,
        "seconds": cells.seconds,
        "rows": [row for row in one["rows"] if row["name"] == "real"] + base + judged,
        "guided": guided,
        "methods": methods,
        "ablations": varied,
        "classifier": next(
            (e["summary"]["classifier"] for e in all_runs if e["summary"]["classifier"]), None
        ),
        "best": min(judged, key=lambda row: row["fd"]),
        "protocol": one["protocol"],
        "judged_on": [config.proof_first_seed, config.proof_first_seed + config.proof_samples - 1],
        "versions": one["versions"],
    }
