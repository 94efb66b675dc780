"""A table in words: settings, how the figures came about, what was tried, what the paper says of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mclr_fast.evaluation.rows import Row

from .run_text import classifier_sentence
from .table_summary import Ablation, Final, Settings, TableSummary, Tried
from .words import FD, IS, KINDS, OBJECTIVES, Metric

SYMBOLS = {
    "num_negatives": "K",
    "batch_size": "N",
    "dsm_weight": "DSM weight",
    "beta": "β",
    "lambda_coef": "λ",
    "eta": "η",
    "guidance_weight": "w",
}
CFG = "cfg"
"""The base under its best guidance, among the objectives."""
PAPER = (
    ("mclr", "ddo", "better in the paper (Table 1)"),
    ("mclr", "cca", "better in the paper (Table 1)"),
    ("mclr", "ccdpo", "better in the paper (Table 1)"),
    (CFG, "mclr", "better in the paper (Table 1)"),
    ("mclr", "denoising", "the control of as many images"),
    ("ccdpo", "cca", "as good or better in the paper (section G.3)"),
    ("weighted-mclr", "mclr", "whose weight the paper leaves out as intractable"),
)


def symbol(option: str) -> str:
    """An option as the paper writes it."""
    return SYMBOLS.get(option, option.replace("_", " "))


def settings_text(settings: Settings) -> str:
    """lr 1e-4, β 0.02."""
    return ", ".join(f"{symbol(key)} {number(key, value)}" for key, value in settings.items())


def number(option: str, value: float) -> str:
    """An option's value: learning rates as 1e-4."""
    return f"{value:.0e}".replace("e-0", "e-") if option == "lr" else f"{value:g}"


def judged_rows(summary: TableSummary) -> dict[str, list[Row]]:
    """The judged rows by method, one a seed; the base and guidance have one."""
    methods = {name: [run.judged for run in method.runs] for name, method in summary.methods.items()}
    return {"base": summary.of("base"), CFG: summary.of("guidance"), **methods}


def how(summary: TableSummary) -> str:
    """How the figures came about."""
    chose, judged = (
        f"{first:,} to {last:,}" for first, last in (summary.protocol["seeds"], summary.judged_on)
    )
    seeds = ", ".join(map(str, summary.seeds))
    return (
        f"Each method at the best of its grid, training seeds {seeds}: the checkpoint of lowest FD on "
        f"sampling seeds {chose}, judged on seeds {judged}. Means over training seeds, in brackets lowest "
        "and highest; base and guidance have no training seed. NFE: network calls a sample. "
        f"{summary.seconds / 60:.0f} minutes in all on {summary.versions['device']}."
    )


def tried_sentences(summary: TableSummary) -> Iterator[str]:
    """What was tried of each method, with the lowest FD of each try, what stopped early, and its times."""
    for name, method in summary.methods.items():
        tries = "; ".join(
            f"{settings_text(entry.settings)}: {FD.text(entry.fd)}{_stopped(entry)}" for entry in method.grid
        )
        seconds = [run.seconds for run in method.runs]
        stops = [f"seed {run.seed}{_stopped(run)}" for run in method.runs if run.stopped]
        final = f"Final runs: {np.mean(seconds):.0f} s each" + "".join(f", {stop}" for stop in stops)
        yield f"{OBJECTIVES[name]}, lowest FD of each try: {tries}. {final}."


def _stopped(run: Tried | Final) -> str:
    """Where the guard (training/stopping.py) ended a run."""
    return f" (stopped at {run.stopped.images_seen:,} images)" if run.stopped else ""


def findings(summary: TableSummary) -> Iterator[str]:
    """What the paper says of these methods, and whether it is so here."""
    ours = judged_rows(summary)
    for name, other, paper in PAPER:
        if ours.get(name) and ours.get(other):
            verdicts = (f"{m.title} {_compared(m, ours[name], ours[other])}" for m in (FD, IS))
            yield f"{_name(name)} against {_name(other)}, {paper}. Here: {', '.join(verdicts)}."
    yield from _gaps(ours)
    yield from _twins(summary)
    for ablation in summary.ablations:
        best = min(ablation.runs, key=lambda entry: entry.fd)
        values = "; ".join(_value(ablation, entry) for entry in ablation.runs)
        lowest = number(ablation.option, best.settings[ablation.option])
        yield f"{ablation_title(ablation)} ({ablation.figure}), lowest FD: {values}. Best at {lowest}."
    if summary.classifier:
        yield classifier_sentence(summary.classifier)


def ablation_title(ablation: Ablation) -> str:
    """MCLR by K."""
    return f"{OBJECTIVES[ablation.objective]} by {symbol(ablation.option)}"


def _value(ablation: Ablation, entry: Tried) -> str:
    option = ablation.option
    return f"{number(option, entry.settings[option])}: {FD.text(entry.fd)}{_stopped(entry)}"


def _name(name: str) -> str:
    return KINDS["guidance"] if name == CFG else OBJECTIVES[name]


def _compared(metric: Metric, rows: list[Row], others: list[Row]) -> str:
    """Better or worse where all seeds say so."""
    sign = -1 if metric.arrow == "↓" else 1
    first, second = ([sign * metric.of(row) for row in group] for group in (rows, others))
    values = " and ".join(metric.text(_mean(metric, group)) for group in (rows, others))
    if min(first) > max(second):
        return f"better ({values})"
    return f"{'worse' if max(first) < min(second) else 'not told apart'} ({values})"


def _mean(metric: Metric, rows: list[Row]) -> float:
    return float(np.mean([metric.of(row) for row in rows]))


def _twins(summary: TableSummary) -> Iterator[str]:
    """Why two rows may be the same."""
    gft, guided = (summary.methods.get(name) for name in ("gft", "model-guidance"))
    if not gft or not guided:
        return
    if abs(gft.settings["beta"] + guided.settings["guidance_weight"] - 1) < 1e-9:
        yield (
            "Model guidance at w = 1-β is GFT: their gradients differ by the factor β alone, "
            "which Adam cancels."
        )


def _gaps(ours: dict[str, list[Row]]) -> Iterator[str]:
    """How much of what MCLR leaves to CFG the adaptive weight takes back."""
    names = (CFG, "mclr", "weighted-mclr")
    if not all(ours.get(name) for name in names):
        return
    for metric in (FD, IS):
        sign = 1 if metric.arrow == "↓" else -1
        cfg, plain, weighted = (sign * _mean(metric, ours[name]) for name in names)
        if plain <= cfg:
            yield f"In {metric.title} MCLR leaves no gap to CFG at its best FD that a weight could close."
        else:
            closed = (plain - weighted) / (plain - cfg)
            does = f"closes {closed:.0%} of" if closed > 0 else f"widens by {-closed:.0%}"
            apart = "not" not in _compared(metric, ours["weighted-mclr"], ours["mclr"])
            spread = "" if apart else ", within the spread of the seeds"
            yield f"In {metric.title} the adaptive weight {does} MCLR's gap to CFG, by the means{spread}."
