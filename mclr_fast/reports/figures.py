"""The report's figures. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mclr_fast.evaluation.rows import Row

from .grid import GridEntry
from .run_data import IMAGES_SEEN, RunData, points
from .words import CURVES, FD, IS, KINDS, PRECISION, RECALL, Metric, label, objective_title

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
    "legend.frameon": False,
    "legend.fontsize": 9,
}
MANY_PIXELS = 1000  # of a grid's width: more are more than the picture has


class Picture(NamedTuple):
    """A figure: its file's stem, what it shows in words, and its PNG."""

    name: str
    alt: str
    png: bytes


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


def draw(run: RunData) -> dict[str, list[Picture]]:
    """Section -> its pictures: grid, tradeoffs, metrics, loss; only what the run has data for."""
    with styled():
        num_noises = min((len(entry.images) for entry in run.grid), default=0)
        tradeoffs = ((IS, FD), (RECALL, PRECISION)) if run.base or run.guided else ()
        over_training = not run.summary.proof  # a proof's rows are of several runs: no curve joins them
        sections = {
            "grid": [_grid(run, noise) for noise in range(num_noises)],
            "tradeoffs": [_tradeoff(run, x, y) for x, y in tradeoffs if over_training],
            "metrics": [_metric(run, metric) for metric in CURVES if over_training],
            "loss": [_loss(run, arm) for arm in run.log] + [_energies(run)],
        }
    return {name: [p for p in pictures if p] for name, pictures in sections.items()}


def _grid(run: RunData, noise: int) -> Picture:
    """The paper's Figure 2: one initial noise, columns = classes, rows = models."""
    shown = run.shown_grid
    best = next((row for row, entry in enumerate(shown) if run.is_kept(entry)), None)
    tiles = [_row_of_tiles(entry.images[noise]) for entry in shown]
    height, width = tiles[0].shape[:2]
    num_classes = len(shown[0].images[noise])
    size = (6.4, 0.6 + 4.8 * len(tiles) * height / width)
    classes = run.summary.grid_classes or range(num_classes)
    seeds = run.summary.grid_seeds or ()
    seed = f" (seed {seeds[noise]})" if noise < len(seeds) else ""
    fig, ax = axes(size, title=f"Noise {noise + 1}{seed}")
    ax.imshow(np.concatenate(tiles), interpolation="nearest" if width < MANY_PIXELS else "antialiased")
    ax.set_xticks((np.arange(num_classes) + 0.5) * width / num_classes - 0.5, classes)
    marked = ["★ " * (row == best) + _grid_label(entry) for row, entry in enumerate(shown)]
    ax.set_yticks((np.arange(len(tiles)) + 0.5) * height - 0.5, marked)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    if best is not None:
        ax.add_patch(_frame((-0.5, best * height - 0.5), width, height))
        ax.get_yticklabels()[best].set(color=TRAINED, fontweight="bold")
    alt = f"Samples from one initial noise for {num_classes} classes, by {'; '.join(marked)}."
    return picture(fig, f"grid-{noise + 1}", alt, bbox_inches="tight")


def _grid_label(entry: GridEntry) -> str:
    """Its row's, and how far it was trained."""
    return label(entry) + (f", {entry.images_seen:,} images" if entry.images_seen else "")


def _row_of_tiles(images: np.ndarray) -> np.ndarray:
    """[num_classes, C, H, W] -> [H+2, num_classes (W+2), 3] with a white border round each."""
    rgb = np.broadcast_to(images, (len(images), 3, *images.shape[2:]))
    tiles = np.pad(rgb, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    return np.concatenate(list(tiles.transpose(0, 2, 3, 1)), axis=1)


def _frame(corner: tuple[float, float], width: float, height: float):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, color=TRAINED, linewidth=2.5, clip_on=False)


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
            note(ax, row, x, y, text, BASE, (-6, -13))
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
    if not seen:
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
    if not positive[0] or not negative[0]:
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


def log_axis(ax: Axes) -> None:
    """A logarithmic y axis with ticks like 0.1, 0.2, 0.5."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def note(ax: Axes, row: Row, x: Metric, y: Metric, text: str, color: str, offset=(5, 4)) -> None:
    """A word beside a row's point."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]
    for point in zip(*points([row], x.of, y.of), strict=True):
        text_at = ax.annotate(text, point, xytext=offset, textcoords="offset points")
        text_at.set(color=color, fontsize=9, path_effects=halo, zorder=5)


def axis_title(metric: Metric) -> str:
    """The metric and where better lies."""
    return f"{metric.title} ({'lower' if metric.arrow == '↓' else 'higher'} is better)"


def _pair(path: tuple[list[float], list[float]], index: int, x: Metric, y: Metric) -> str:
    return f"{x.title} {x.text(path[0][index])}, {y.title} {y.text(path[1][index])}"


def _running_mean(values: list[float]) -> np.ndarray:
    """Mean over the last tenth of the log, growing at the start."""
    window = max(len(values) // 10, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def count_formatter():
    """Ticks like 1k, 2M."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def picture(fig: Figure, name: str, alt: str, **options: str) -> Picture:
    """The figure as PNG."""
    buffer = BytesIO()
    fig.savefig(buffer, format="png", dpi=180, metadata={"Software": None}, **options)
    return Picture(name, alt, buffer.getvalue())
