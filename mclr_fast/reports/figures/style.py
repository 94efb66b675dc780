"""How figures look, and their parts. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mclr_fast.evaluation.rows import Row
from mclr_fast.reports.run_data import points
from mclr_fast.reports.words import FD, Metric

from .labels import NOTE, keep_clear

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers too.
TRAINED, GUIDED, CONTROL, REAL = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
DIAL, GUIDED_BEST = "#E69F00", "#56B4E9"
BASE, MUTED = "#000000", "#767676"
STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


class Picture(NamedTuple):
    """A figure: its file's stem, what it shows in words, its PNG; a chart's colours may turn in the dark."""

    name: str
    alt: str
    png: bytes
    is_chart: bool = True


@contextlib.contextmanager
def styled(**more: Any) -> Iterator[None]:
    """Draw during the block in the report's style, whatever MPLBACKEND names."""
    if "matplotlib" not in sys.modules:
        _import_matplotlib()
    import matplotlib

    with matplotlib.rc_context({**STYLE, **more}):
        yield


def _import_matplotlib() -> None:
    """Import it without MPLBACKEND, then give it that where it can be used.

    Pictures are written to files and need no backend, but matplotlib cannot be imported where the variable
    names one that is not here, as a notebook leaves it to the programs that it starts.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def axes(size: tuple[float, float], title: str, xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    """A figure of this size in inches with one set of axes."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=size, layout="constrained")
    ax = fig.subplots()
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return fig, ax


def finish(fig: Figure, ax: Axes, metric: Metric | None = None, columns: int = 3) -> None:
    """Legend below, room at the margins, and a log axis where FD spans more than a decade."""
    ax.margins(0.08)
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    if metric is FD and values.min() > 0 and values.max() > 10 * values.min():
        log_axis(ax)
    fig.legend(loc="outside lower center", ncols=columns)
    keep_clear(fig, ax)


def log_axis(ax: Axes) -> None:
    """A logarithmic y axis with ticks like 0.1, 0.2, 0.5."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def note(ax: Axes, row: Row, x: Metric, y: Metric, text: str, color: str) -> None:
    """A word beside a row's point; `finish` puts it where it covers least."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]
    for point in zip(*points([row], x.of, y.of), strict=True):
        text_at = ax.annotate(text, point, xytext=(0, 9), textcoords="offset points", gid=NOTE)
        text_at.set(color=color, fontsize=9, path_effects=halo, zorder=5, ha="center", va="center")


def axis_title(metric: Metric) -> str:
    """The metric and where better lies."""
    return f"{metric.title} ({'lower' if metric.arrow == '↓' else 'higher'} is better)"


def count_formatter():
    """Ticks like 1k, 2M."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def picture(fig: Figure, name: str, alt: str, *, is_chart: bool = True, **options: str) -> Picture:
    """The figure as PNG."""
    buffer = BytesIO()
    fig.savefig(buffer, format="png", dpi=180, metadata={"Software": None}, **options)
    return Picture(name, alt, buffer.getvalue(), is_chart)
