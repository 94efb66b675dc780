"""One page of several runs: their trade-offs and metrics in one picture each, their rows in one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import cycle
from pathlib import Path

from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime.files import replacing

from .figures.style import (
    BASE,
    GUIDED,
    MUTED,
    Picture,
    axes,
    axis_title,
    count_formatter,
    finish,
    note,
    picture,
    styled,
)
from .html_page import bullets, heading, page, section, table
from .run_data import IMAGES_SEEN, points
from .several_runs import (
    NamedRun,
    Repeated,
    alike,
    bases,
    different_measures,
    different_options,
    measured,
    read_runs,
    repeated,
)
from .words import CURVES, FD, IS, KINDS, PRECISION, RECALL, Metric, label

DASH = "\N{EN DASH}"
# Of Okabe and Ito's palette and two more, neighbours told apart; a run has its own marker too.
COLORS = ("#D55E00", "#009E73", "#56B4E9", "#882255", "#E69F00", "#CC79A7", "#332288", "#8C564B")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<")


def write_page(outdirs: Sequence[Path], target: Path) -> Path:
    """Write target/report.html and target/figures/*.png of the runs in `outdirs`; return the page.

    Errors: those of `read_runs`; RunError where nothing can be written.
    """
    runs = read_runs(outdirs)
    pictures = draw(runs)
    files = {target / "figures" / f"{p.name}.png": p.png for group in pictures.values() for p in group}
    path = target / "report.html"
    for file, content in {**files, path: _page(runs, pictures).encode()}.items():
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    return path


def draw(runs: Sequence[NamedRun]) -> dict[str, list[Picture]]:
    """Section -> its pictures: tradeoffs, metrics; only what any run has data for."""
    with styled():
        sections = {
            "tradeoffs": [_tradeoff(runs, x, y) for x, y in ((IS, FD), (RECALL, PRECISION))],
            "metrics": [_metric(runs, metric) for metric in CURVES],
        }
    return {name: [p for p in pictures if p] for name, pictures in sections.items()}


def _looks(runs: Sequence[NamedRun]) -> Iterator[tuple[NamedRun, str, str]]:
    """Each run with a colour and a marker, which together are its own; colours return after eight."""
    for i, run in enumerate(runs):
        yield run, COLORS[i % len(COLORS)], MARKERS[(i + i // len(COLORS)) % len(MARKERS)]


def _tradeoff(runs: Sequence[NamedRun], x: Metric, y: Metric) -> Picture | None:
    """Every run over training, from its base; CFG over guidance, once where runs share it."""
    fig, ax = axes((6.2, 5.4), f"{y.title} against {x.title}", axis_title(x), axis_title(y))
    curves, starts = alike(runs), bases(runs)
    for (guided, names), line in zip(curves, cycle(("--", ":", "-.")), strict=False):
        start = next((base for base, of in starts if of[0] == names[0]), [])
        whose = f" ({names[0]})" if len(curves) > 1 else ""
        ax.plot(*points([*start, *guided], x.of, y.of), "*", ls=line, color=GUIDED, ms=7,
                label=KINDS["guidance"] + whose)  # fmt: skip
        for row in guided:
            note(ax, row, x, y, f"{row.guidance:g}", GUIDED)
    drawn = []
    for run, color, marker in _looks(runs):
        line = points(run.path, x.of, y.of)
        if line[0]:
            ax.plot(*line, marker=marker, color=color, ms=4, label=run.name)
            drawn.append(run.name)
        if run.run.best:
            best = points([run.run.best], x.of, y.of)
            ax.plot(*best, marker=marker, color=color, ms=11, mec=BASE, zorder=5)
    for (base, names), fill in zip(starts, cycle((BASE, "white", MUTED)), strict=False):
        whose = f" ({names[0]})" if len(starts) > 1 else ""
        ax.plot(
            *points(base, x.of, y.of), "o", color=BASE, mfc=fill, ms=7, label=KINDS["base"] + whose, zorder=6
        )
    real = points(runs[0].run.rows("real"), x.of, y.of)
    if real[0]:
        ax.plot(*real, "d", color=MUTED, ms=7, label=KINDS["real"])
    if not drawn:
        return None
    finish(fig, ax, y, columns=_columns(runs))
    alt = f"{y.title} against {x.title}, over training: {', '.join(drawn)}; CFG over guidance."
    return picture(fig, f"runs-{y.key}-{x.key}", alt)


def _metric(runs: Sequence[NamedRun], metric: Metric) -> Picture | None:
    """One metric over images seen, a curve a run."""
    fig, ax = axes((4.8, 3.9), axis_title(metric), "Images seen")
    drawn = []
    for run, color, marker in _looks(runs):
        seen, values = points(run.path, IMAGES_SEEN, metric.of)
        if values:
            ax.plot(seen, values, marker=marker, color=color, ms=4, label=run.name)
            drawn.append(f"{run.name} from {metric.text(values[0])} to {metric.text(values[-1])}")
    if not drawn:
        return None
    finish(fig, ax, metric, columns=_columns(runs))
    ax.xaxis.set_major_formatter(count_formatter())
    return picture(fig, f"runs-{metric.key}", f"{metric.title} over images seen: {'; '.join(drawn)}.")


def _columns(runs: Sequence[NamedRun]) -> int:
    """Of the legend: long names stand below each other."""
    longest = max(len(run.name) for run in runs)
    return 3 if longest < 16 else 2 if longest < 30 else 1


def _page(runs: Sequence[NamedRun], pictures: dict[str, list[Picture]]) -> str:
    return page(
        f"{len(runs)} runs",
        f'<p class="note">{_listed(runs)}</p>\n',
        section(
            "Trade-offs",
            "A curve a run over training, from its base; the large marker with a black edge is its kept "
            "checkpoint. CFG is the base under guidance, whose strength is beside the stars.",
            pictures["tradeoffs"],
        ),
        section("Metrics over images seen", "", pictures["metrics"]),
        _numbers(runs),
        _over_seeds(runs),
        _options(runs),
    )


def _listed(runs: Iterable[NamedRun]) -> str:
    return escape("; ".join(f"{run.name}: {run.run.title}, {run.run.summary.recipe}" for run in runs) + ".")


def _numbers(runs: Sequence[NamedRun]) -> str:
    """Of every run the base, its best guidance, the control and the kept checkpoint; the best FD marked."""
    columns = measured(runs)
    head = ["Run", "Model", "Seed", "Images seen", "Network calls", "Samples"]
    head += [f"{m.title} {m.arrow}" for m in columns]
    kept = [run.run.best for run in runs if run.run.best and run.run.best.fd is not None]
    lowest = min((row.fd for row in kept), default=None)

    def cells(run: NamedRun, row: Row) -> tuple[list[str], bool]:
        counts = [f"{n:,}" if n else DASH for n in (row.images_seen, row.nfe, row.samples)]
        name = label(row) + (" ★ best FD" if row is run.run.best else "")
        line = [run.name, name, str(run.run.summary.seed), *counts, *(m.text(m.of(row)) for m in columns)]
        return line, row is run.run.best and row.fd == lowest

    body = [[cells(run, row) for row in _shown(run)] for run in runs]
    words = [
        f"Not measured alike, so they compare only roughly: {text}." for text in different_measures(runs)
    ]
    if lowest is not None and len(kept) > 1:
        words.append("Marked: the lowest FD of the kept checkpoints, each chosen on these same samples.")
    return f"{heading('Numbers')}{table(head, [rows for rows in body if rows], 1)}{bullets(words)}\n"


def _shown(run: NamedRun) -> list[Row]:
    """The rows that the table has of a run; without a kept checkpoint, its last. The final ones too."""
    trained = run.run.best or next(reversed(run.run.trained), None)
    control = next(reversed(run.run.control), None)
    rows = [row for row in (run.run.base, run.guided_best, control, trained) if row is not None]
    return rows + list(run.run.summary.final)


def _over_seeds(runs: Sequence[NamedRun]) -> str:
    """Mean and spread of the same run with several seeds; nothing where no run is repeated."""
    groups = repeated(runs)
    if not groups:
        return ""
    columns = measured(runs)

    def cells(group: Repeated) -> list[str]:
        spreads = [(m, group.spread(m)) for m in columns]
        values = [DASH if s is None else f"{m.text(s[0])} ± {m.text(s[1])}" for m, s in spreads]
        seeds = ", ".join(map(str, group.seeds))
        return [", ".join(group.names), seeds, f"{group.rows[0].samples:,}", *values]

    head = ["Runs", "Seeds", "Samples", *(f"{m.title} {m.arrow}" for m in columns)]
    note = "Runs that differ in their training seed alone: mean ± standard deviation (n-1) of what each kept."
    body = table(head, [[(cells(group), False) for group in groups]], 1)
    return f'{heading("Over training seeds")}<p class="note">{note}</p>\n{body}\n'


def _options(runs: Sequence[NamedRun]) -> str:
    options = different_options(runs)
    if not options:
        return ""
    body = [[([name, *(value or DASH for value in values)], False) for name, values in options.items()]]
    head = ["Option", *(run.name for run in runs)]
    return f"{heading('Where their options differ')}{table(head, body, len(runs))}\n"
