"""A table's report: the paper's Table 1, its Figure 4 for all methods, and the ablations."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime.files import replacing

from .figures.style import (
    BASE,
    GUIDED,
    REAL,
    Picture,
    axes,
    axis_title,
    count_formatter,
    finish,
    log_axis,
    note,
    picture,
    styled,
)
from .html_page import Html, bullets, heading, page, section, table
from .run_data import IMAGES_SEEN, points, read_summary
from .table_summary import Ablation, TableSummary
from .table_text import (
    CFG,
    ablation_title,
    findings,
    how,
    judged_rows,
    number,
    settings_text,
    symbol,
    tried_sentences,
)
from .words import FD, IS, KINDS, OBJECTIVES, PRECISION, RECALL, Metric

COLUMNS = (FD, PRECISION, RECALL, IS)  # the paper's order
HEAD = ["Method", "Settings", "NFE", *(f"{m.title} {m.arrow}" for m in COLUMNS)]
# Okabe and Ito's palette and five more; a method also has its own marker.
LOOKS = {
    "denoising": ("#999933", ">"),
    "plus-minus": ("#117733", "p"),
    "mclr": ("#D55E00", "o"),
    "weighted-mclr": ("#E69F00", "s"),
    "kl-mclr": ("#882255", "v"),
    "ccdpo": ("#009E73", "^"),
    "cca": ("#56B4E9", "D"),
    "ddo": ("#CC79A7", "P"),
    "gft": ("#767676", "X"),
    "model-guidance": ("#332288", "<"),
}
WIDE = "gft"  # drawn wide: model guidance may lie on it
SHADES = ("#fdae6b", "#f16913", "#a63603", "#3f1500")  # of an ablation's values, light = first


def write_table_report(outdir: Path) -> Path:
    """Write table.md, figures/*.png and report.html from `outdir`'s summary.json; return the page.

    Errors: those of `read_summary`; ValueError where it is not a table's; RunError where nothing can be
    written.
    """
    summary = read_summary(outdir)
    if not isinstance(summary, TableSummary):
        raise ValueError(f"{outdir} is a run's folder, not a table's.")
    pictures = list(draw(summary))
    target = outdir / "report.html"
    files = {outdir / "figures" / f"{p.name}.png": p.png for p in pictures}
    files |= {outdir / "table.md": markdown(summary).encode(), target: _page(summary, pictures).encode()}
    for path, content in files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return target


def _groups(summary: TableSummary) -> Iterator[tuple[str, list[Row], str]]:
    judged = judged_rows(summary)
    yield KINDS["base"], judged["base"], ""
    for guided in judged[CFG]:
        yield KINDS["guidance"], [guided], f"guidance {guided.guidance:g}"
    for name, method in summary.methods.items():
        yield OBJECTIVES[name], judged[name], settings_text(method.settings)


class Line(NamedTuple):
    """A row of Table 1: its first cells, then for each metric a text and "best", "second" or ""."""

    first: list[str]
    metrics: list[tuple[str, str]]


def lines(summary: TableSummary) -> list[Line]:
    """Table 1: method, settings, network calls; means over seeds with their ranges, the best two marked.

    The last line, where there are held-out images, says what as many of them as samples score: no method, so
    never marked.
    """
    groups, marks = list(_groups(summary)), {}
    for metric in COLUMNS:
        means = [np.mean([metric.of(row) for row in rows]) for _, rows, _ in groups]
        order = np.argsort(means)[:: 1 if metric.arrow == "↓" else -1]
        marks |= {(order[0], metric.key): "best", (order[1], metric.key): "second"}
    if real := summary.of("real"):
        groups.append((KINDS["real"], real, "held out"))
    return [
        Line(
            [name, settings, str(rows[0].nfe)],
            [(_range_text(metric, rows), marks.get((i, metric.key), "")) for metric in COLUMNS],
        )
        for i, (name, rows, settings) in enumerate(groups)
    ]


def _range_text(metric: Metric, rows: list[Row]) -> str:
    values = [metric.of(row) for row in rows]
    text = metric.text(float(np.mean(values)))
    if len(values) == 1:
        return text
    return f"{text} ({metric.text(min(values))}\N{EN DASH}{metric.text(max(values))})"


def markdown(summary: TableSummary) -> str:
    """Table 1 and how it was made, as Markdown: the best of a column bold, the second underlined."""
    wrap = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
    rows = [line.first + [wrap[mark].format(text) for text, mark in line.metrics] for line in lines(summary)]
    body = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in body) + "\n"


def draw(summary: TableSummary) -> Iterator[Picture]:
    """Both trade-offs of all methods, then two panels an ablation."""
    with styled():
        for x, y in ((IS, FD), (RECALL, PRECISION)):
            yield _tradeoff(summary, x, y)
        for ablation in summary.ablations:
            for metric in (FD, IS):
                yield _ablation(ablation, metric)


def _tradeoff(summary: TableSummary, x: Metric, y: Metric) -> Picture:
    """The paper's Figure 4 (c, f): every method over training (first seed), CFG over guidance."""
    fig, ax = axes((6.2, 5.4), f"{y.title} against {x.title}", axis_title(x), axis_title(y))
    curves = {name: method.runs[0].curve for name, method in summary.methods.items()}
    base = next(iter(curves.values()))[0]
    if summary.guided:
        guided = points([base, *summary.guided], x.of, y.of)
        ax.plot(*guided, "*--", color=GUIDED, ms=7, label=KINDS["guidance"])
    for row in summary.guided:
        note(ax, row, x, y, f"{row.guidance:g}", GUIDED)
    for name, rows in curves.items():
        color, marker = LOOKS[name]
        wide = {"lw": 4.5, "ms": 8, "alpha": 0.5} if name == WIDE else {"ms": 4}
        ax.plot(*points(rows, x.of, y.of), marker=marker, color=color, label=OBJECTIVES[name], **wide)
    ax.plot(x.of(base), y.of(base), "o", color=BASE, ms=7, label=KINDS["base"], zorder=5)
    if real := summary.of("real"):
        ax.plot(*points(real, x.of, y.of), "d", color=REAL, ms=7, label=KINDS["real"], zorder=5)
    if y is FD:
        log_axis(ax)
    finish(fig, ax, y)
    methods = ", ".join(OBJECTIVES[name] for name in curves)
    alt = f"{y.title} against {x.title}: CFG over guidance, and {methods} over training."
    return picture(fig, f"table-tradeoff-{y.key}-{x.key}", alt)


def _ablation(ablation: Ablation, metric: Metric) -> Picture:
    """One metric over images seen, a curve a value of the option."""
    option, name = ablation.option, OBJECTIVES[ablation.objective]
    title = f"{name}: {metric.title} by {symbol(option)}"
    fig, ax = axes((4.4, 3.5), title, "Images seen", axis_title(metric))
    for entry, color in zip(ablation.runs, SHADES, strict=False):
        label = f"{symbol(option)} = {number(option, entry.settings[option])}"
        ax.plot(*points(entry.rows, IMAGES_SEEN, metric.of), "o-", color=color, ms=4, label=label)
    finish(fig, ax, metric, columns=2)
    ax.xaxis.set_major_formatter(count_formatter())
    stem = f"table-{ablation.objective}-{option}-{metric.key}"
    values = ", ".join(f"{value:g}" for value in ablation.values)
    return picture(fig, stem, f"{metric.title} of {name} over images seen, for {symbol(option)} {values}.")


def _rest(ablation: Ablation) -> str:
    return settings_text({k: v for k, v in ablation.settings.items() if k != ablation.option})


def _page(summary: TableSummary, pictures: list[Picture]) -> str:
    wrap = {"best": "<b>{}</b>", "second": "<u>{}</u>", "": "{}"}
    body = [
        (line.first + [Html(wrap[mark].format(escape(text))) for text, mark in line.metrics], False)
        for line in lines(summary)
    ]
    first = 1 + len(summary.of("guidance"))  # of the methods
    last = len(body) - bool(summary.of("real"))
    parts = [
        section(
            ablation_title(ablation),
            f"{ablation.figure} of the paper; {_rest(ablation)}. One seed, evaluated as in the grid.",
            pictures[2 + 2 * i : 4 + 2 * i],
        )
        for i, ablation in enumerate(summary.ablations)
    ]
    return page(
        f"Table: {summary.recipe}",
        f'<p class="note">{escape(how(summary))} Best of a column bold, second underlined.</p>\n',
        table(HEAD, [part for part in (body[:first], body[first:last], body[last:]) if part], text_columns=1),
        heading("Found here"),
        bullets(findings(summary)),
        section(
            "Trade-offs",
            "The paper's Figure 4 (c, f): from the base, over training (first seed) or guidance (its "
            "strength beside the stars, 1 = none).",
            pictures[:2],
        ),
        *parts,
        heading("What was tried"),
        bullets(tried_sentences(summary)),
    )
