"""The tables and the figure of docs/dial.md, made of docs/results/dial.json; dial_trial.py calls them."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mclr_fast.reports.figures import style

WAYS = {  # way -> its words, its settings' heading, colour, line
    "stopping": ("Stopping earlier or later", "images", style.CONTROL, "s-"),
    "dial": ("Dial: weights", "strength", style.TRAINED, "o-"),
    "guide": ("Base as guide", "guidance", style.REAL, "v-"),
    "over": ("Dial of the over-trained", "strength", style.MUTED, "D--"),
    "cfg": ("CFG on the base", "guidance", style.GUIDED, "^-"),
}
NAMES = {"fd": "FD", "is": "IS", "precision": "precision", "recall": "recall"}
DIGITS = {"fd": 3, "is": 2, "precision": 3, "recall": 3}
# What is written at points, as most curves lie on each other: way -> settings, and where by the y axis.
WRITTEN = {
    "dial": ((0, 0.25, 0.5, 0.75, 1, 2), {"fd": (-8, -9), "precision": (-9, -7)}),
    "cfg": ((1.05, 1.1, 1.175, 1.25, 1.35, 1.5), {"fd": (4, 5), "precision": (6, 2)}),
}


def curves_of(rows: list[dict], way: str) -> list[list[dict]]:
    """A way's rows, one list for each training seed."""
    curves: dict[int, list[dict]] = {}
    for row in rows:
        if row["way"] == way:
            curves.setdefault(row["seed"], []).append(row)
    return list(curves.values())


def ranged(values: Sequence[float], digits: int) -> str:
    """Their mean, and in brackets the lowest and the highest where these differ."""
    low, mean, high = (f"{value:.{digits}f}" for value in (min(values), np.mean(values), max(values)))
    return mean if low == high else f"{mean} ({low}\N{EN DASH}{high})"


def beside_stopping(trial: dict[str, Any], compared: str, x: str, y: str) -> str:
    """A table: what stopping has at each mark, and every other way's y less its own at the same x."""
    others = [way for way in WAYS if way != "stopping"]
    names = (NAMES[x], NAMES[y], *(WAYS[way][0] for way in others))
    lines = [f"| stopped after | {' | '.join(names)} |", "|---" * (3 + len(others)) + "|"]
    for place, mark in enumerate(list(zip(*curves_of(trial["rows"], "stopping"), strict=True))[1:]):
        cells = [f"{mark[0]['setting']:,}", *(ranged([row[m] for row in mark], DIGITS[m]) for m in (x, y))]
        for way in others:
            cells.append(difference(*(trial[compared][way][place] or [math.nan])))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def difference(value: float, *interval: float) -> str:
    """With its sign, and the ends of its interval if it has one; an en dash for nan."""
    if math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def tables(trial: dict[str, Any]) -> list[str]:
    """As Markdown: two at equal scores, the over-trained model turned down, every setting."""
    over = [
        "| seed | best after | its FD | FD after twice as many | strength | FD there | minus the best's "
        "| minus that after twice as many |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in trial["over_trained"]:
        down, kept, last = (f"{fd:.3f}" for fd in run["fd"])
        minus = (difference(*run[key]) for key in ("minus_best", "minus_over_trained"))
        cells = (run["seed"], f"{run['best']:,} images", kept, last, f"{run['strength']:g}", down, *minus)
        over.append(f"| {' | '.join(map(str, cells))} |")

    every = [f"| | setting | calls | {' | '.join(NAMES.values())} |", "|---|---|---|---|---|---|---|"]
    for way, (words, what, *_) in WAYS.items():
        for point in zip(*curves_of(trial["rows"], way), strict=True):
            metrics = [ranged([row[metric] for row in point], DIGITS[metric]) for metric in NAMES]
            setting = f"{what} {point[0]['setting']:,g}"
            every.append(f"| {words} | {setting} | {point[0]['calls']} | {' | '.join(metrics)} |")
    return [
        beside_stopping(trial, "fd_at_equal_is", "is", "fd"),
        beside_stopping(trial, "recall_at_equal_precision", "precision", "recall"),
        *("\n".join(lines) + "\n" for lines in (over, every)),
    ]


def draw(trial: dict[str, Any]) -> bytes:
    """FD against Inception Score, and precision against recall, as PNG: means, and each training faintly.

    Where they lie apart: guidance goes on outside.
    """
    with matplotlib.rc_context(style.STYLE):
        fig = Figure(figsize=(10.4, 5.2), layout="constrained")
        panels = fig.subplots(1, 2)
        for ax, (x, y) in zip(panels, (("is", "fd"), ("recall", "precision")), strict=True):
            for way, (words, what, color, line) in WAYS.items():
                curves = curves_of(trial["rows"], way)
                for curve in curves:
                    ax.plot([r[x] for r in curve], [r[y] for r in curve], color=color, lw=0.7, alpha=0.35)
                xs, ys = (np.mean([[row[m] for row in curve] for curve in curves], axis=0) for m in (x, y))
                ax.plot(xs, ys, line, color=color, ms=4, label=f"{words} ({what})")
                written, offset = WRITTEN.get(way, ((), {}))
                for row, *at in zip(curves[0], xs, ys, strict=True):
                    if row["setting"] in written:
                        _write(ax, f"{row['setting']:g}", at, offset[y], color)
        panels[0].set(title="FD against Inception Score", xlabel="Inception Score", ylabel="FD, low is good")
        panels[0].set(xlim=(7.92, 9.33), ylim=(0.03, 0.104))
        panels[1].set(title="Precision against recall", xlabel="Recall", ylabel="Precision")
        panels[1].set(xlim=(0.775, 0.905), ylim=(0.795, 0.898))
        fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return style.picture(fig, "dial", "").png


def _write(ax: Axes, text: str, at: Sequence[float], offset: tuple[int, int], color: str) -> None:
    """Beside a point, if it is in sight."""
    halo = [withStroke(linewidth=2, foreground="white")]
    place = {"textcoords": "offset points", "annotation_clip": True, "zorder": 5}
    place["ha"] = "right" if offset[0] < 0 else "left"
    ax.annotate(text, at, offset, color=color, fontsize=8, path_effects=halo, **place)
