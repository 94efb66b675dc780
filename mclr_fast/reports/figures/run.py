"""A run's charts: trade-offs, metrics over training, the training loss and the energies."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import numpy as np

from mclr_fast.reports.run_data import IMAGES_SEEN, RunData, points
from mclr_fast.reports.words import CURVES, FD, IS, KINDS, PRECISION, RECALL, Metric, objective_title

from .grid import draw_grid
from .style import (
    BASE,
    CONTROL,
    DIAL,
    GUIDED,
    GUIDED_BEST,
    MUTED,
    REAL,
    TRAINED,
    Picture,
    axes,
    axis_title,
    count_formatter,
    finish,
    note,
    picture,
    styled,
)


def draw(run: RunData) -> dict[str, list[Picture]]:
    """Section -> its pictures: grid, whole grid, tradeoffs, metrics, loss; only what the run has data for."""
    with styled():
        num_noises = min((len(entry.images) for entry in run.grid), default=0)
        tradeoffs = ((IS, FD), (RECALL, PRECISION)) if run.base or run.guided else ()
        leading, shown = run.leading_grid, run.shown_grid
        over_training = not run.summary.proof  # a proof's rows are of several runs: no curve joins them
        sections = {
            "grid": [draw_grid(run, noise, leading) for noise in range(num_noises)],
            "whole grid": [
                draw_grid(run, noise, shown, "-all")
                for noise in range(num_noises)
                if len(shown) > len(leading)
            ],
            "tradeoffs": [_tradeoff(run, x, y) for x, y in tradeoffs if over_training],
            "metrics": [_metric(run, metric) for metric in CURVES if over_training],
            "loss": [_loss(run, arm) for arm in run.log] + [_energies(run)],
        }
    return {name: [p for p in pictures if p] for name, pictures in sections.items()}


def _tradeoff(run: RunData, x: Metric, y: Metric) -> Picture | None:
    """The paper's Figure 4 (c, f): CFG over guidance and the run over training, from the base.

    With them the dial, from the base through the best model, and that model under guidance (section 6.2).
    """
    start = [run.base] if run.base else []
    path = points([*start, *run.trained], x.of, y.of)
    fig, ax = axes((5.2, 4.4), f"{y.title} against {x.title}", axis_title(x), axis_title(y))
    ax.plot(*points([*start, *run.guided], x.of, y.of), "o-", color=GUIDED, ms=4, label=KINDS["guidance"])
    for row in run.guided:
        note(ax, row, x, y, f"{row.guidance:g}", GUIDED)
    ax.plot(*path, "o-", color=TRAINED, ms=4, label=run.title)
    if run.best and run.dial:
        dialled = sorted([*run.dial, replace(run.best, strength=1.0)], key=lambda row: row.strength)
        ax.plot(*points([*start, *dialled], x.of, y.of), "v:", color=DIAL, ms=5, label="Strength dial")
    if run.best and run.guided_best:
        guided = points([run.best, *run.guided_best], x.of, y.of)
        ax.plot(*guided, "^--", color=GUIDED_BEST, ms=4, label=KINDS["guided"])
    for rows, marker, color, words in (
        (run.control, "s", CONTROL, KINDS["control"]),
        (run.rows("real"), "D", REAL, KINDS["real"]),
        (start, "o", BASE, KINDS["base"]),
    ):
        ax.plot(*points(rows, x.of, y.of), marker, color=color, ms=6, label=words)
    if run.best:
        best = points([run.best], x.of, y.of)
        ax.plot(*best, "*", color=TRAINED, ms=14, mec="white", label="Best FD", zorder=4)
    for rows, text in ((start, "Start"), (run.trained[-1:], "End")):
        for row in rows:
            note(ax, row, x, y, text, BASE)
    if not any(len(line.get_xdata()) for line in ax.lines):
        return None
    finish(fig, ax, y)
    ends = f", from {_pair(path, 0, x, y)} to {_pair(path, -1, x, y)}" if path[0] else ""
    alt = f"{y.title} against {x.title}: CFG over guidance and {run.title} over training{ends}."
    return picture(fig, f"tradeoff-{y.key}-{x.key}", alt)


def _metric(run: RunData, metric: Metric) -> Picture | None:
    """The paper's Figure 4 (a, b, d, e): a metric over images seen."""
    start = [run.base] if run.base else []
    seen, values = points([*start, *run.trained], IMAGES_SEEN, metric.of)
    if not points(run.trained, IMAGES_SEEN, metric.of)[0]:
        return None
    fig, ax = axes((4.8, 3.5), axis_title(metric), "Images seen")
    ax.plot(seen, values, "o-", color=TRAINED, ms=4, label=run.title)
    if run.control:
        rows = points([*start, *run.control], IMAGES_SEEN, metric.of)
        ax.plot(*rows, "s--", color=CONTROL, ms=4, label=KINDS["control"])
    for row in run.rows("real"):
        if metric.of(row) is not None:
            ax.axhline(metric.of(row), color=REAL, ls=":", label=KINDS["real"])
    if run.summary.turned_at is not None:
        ax.axvline(run.summary.turned_at, color=MUTED, ls="-.", lw=1, label="FD turns")
    if run.best:
        best = points([run.best], IMAGES_SEEN, metric.of)
        ax.plot(*best, "*", color=TRAINED, ms=14, mec="white", label="Best FD", zorder=4)
    finish(fig, ax, metric)
    ax.xaxis.set_major_formatter(count_formatter())
    alt = (
        f"{metric.title} over images seen: {run.title} from {metric.text(values[0])} "
        f"to {metric.text(values[-1])}, between {metric.text(min(values))} "
        f"and {metric.text(max(values))}."
    )
    return picture(fig, f"metric-{metric.key}", alt)


def _loss(run: RunData, arm: str) -> Picture | None:
    """The training loss of one arm, with its running mean."""
    seen, loss = points(run.log[arm], IMAGES_SEEN, attrgetter("loss"))
    if len(seen) < 2:
        return None
    is_own = arm == run.objective  # a run has one other arm, the control
    color, words = (TRAINED, objective_title(arm)) if is_own else (CONTROL, KINDS["control"])
    fig, ax = axes((4.8, 3.5), f"Loss, {words}", "Images seen")
    ax.plot(seen, loss, color=color, lw=0.8, alpha=0.4, label="Logged")
    ax.plot(seen, _running_mean(loss), color=color, label="Running mean")
    finish(fig, ax)
    ax.xaxis.set_major_formatter(count_formatter())
    alt = f"Training loss of {words} from {loss[0]:.3g} to {loss[-1]:.3g}."
    return picture(fig, f"loss-{arm}", alt)


def _energies(run: RunData) -> Picture | None:
    """Mean energy of the right labels and of the wrong ones: what MCLR pulls apart."""
    lines = run.log.get(run.objective, [])
    positive, negative = (
        points(lines, IMAGES_SEEN, attrgetter(energy)) for energy in ("positive", "negative")
    )
    if min(len(positive[0]), len(negative[0])) < 2:
        return None
    fig, ax = axes((4.8, 3.5), "Mean energy (low = likely)", "Images seen")
    ax.plot(negative[0], _running_mean(negative[1]), "--", color=BASE, label="Wrong label")
    ax.plot(positive[0], _running_mean(positive[1]), color=TRAINED, label="Right label")
    finish(fig, ax)
    ax.xaxis.set_major_formatter(count_formatter())
    alt = (
        f"Mean energies over training: right label from {positive[1][0]:.3g} to "
        f"{positive[1][-1]:.3g}, wrong label from {negative[1][0]:.3g} to {negative[1][-1]:.3g}."
    )
    return picture(fig, "energies", alt)


def _pair(path: tuple[list[float], list[float]], index: int, x: Metric, y: Metric) -> str:
    return f"{x.title} {x.text(path[0][index])}, {y.title} {y.text(path[1][index])}"


def _running_mean(values: list[float]) -> np.ndarray:
    """Mean over the last tenth of the log, growing at the start."""
    window = max(len(values) // 10, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
