"""A table's report: the paper's Table 1, its Figure 4 for all methods, and the ablations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checkpoint import replacing
from .figures import (
    BASE,
    GUIDED,
    STYLE,
    Picture,
    axes,
    axis_title,
    count_formatter,
    finish,
    picture,
)
from .html_page import bullets, page, section, table
from .report_data import FD, IS, NAMES, PRECISION, RECALL, Metric, Row, points

COLUMNS = (FD, PRECISION, RECALL, IS)  # the paper's order
HEAD = ["Method", "Settings", "NFE", *(f"{m.title} {m.arrow}" for m in COLUMNS)]
# Okabe and Ito's palette and three more; a method also has its own marker.
LOOKS = {
    "mclr": ("#D55E00", "o"),
    "weighted-mclr": ("#E69F00", "s"),
    "kl-mclr": ("#882255", "v"),
    "ccdpo": ("#009E73", "^"),
    "cca": ("#56B4E9", "D"),
    "ddo": ("#CC79A7", "P"),
    "gft": ("#767676", "X"),
    "model-guidance": ("#332288", "<"),
}
SHADES = ("#fdae6b", "#f16913", "#a63603", "#3f1500")  # of an ablation's values, light = first


def write_table_report(outdir: Path) -> Path:
    """Write table.md, figures/*.png and report.html from `outdir`'s summary.json; return the page."""
    summary = json.loads((outdir / "summary.json").read_text(encoding="utf-8"))
    pictures = list(draw(summary))
    target = outdir / "report.html"
    files = {outdir / "figures" / f"{p.name}.png": p.png for p in pictures}
    files |= {outdir / "table.md": markdown(summary).encode(), target: _page(summary, pictures).encode()}
    for path, content in files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return target


def _groups(summary: dict[str, Any]) -> Iterator[tuple[str, list[Row], str]]:
    _real, base, guided, *_ = summary["rows"]
    yield "Base", [base], ""
    yield "CFG", [guided], f"guidance {guided['name'].removeprefix('cfg-')}"
    for name, method in summary["methods"].items():
        yield NAMES[name], [run["judged"] for run in method["runs"]], settings_text(method["settings"])


def settings_text(settings: dict[str, Any]) -> str:
    """lr 0.0001, beta 0.02."""
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items())


class Line(NamedTuple):
    """A row of Table 1: its first cells, then for each metric a text and "best", "second" or ""."""

    first: list[str]
    metrics: list[tuple[str, str]]


def lines(summary: dict[str, Any]) -> list[Line]:
    """Table 1: method, settings, network calls; means over seeds with their ranges, the best two marked."""
    groups, marks = list(_groups(summary)), {}
    for metric in COLUMNS:
        means = [np.mean([row[metric.key] for row in rows]) for _, rows, _ in groups]
        order = np.argsort(means)[:: 1 if metric.arrow == "↓" else -1]
        marks |= {(order[0], metric.key): "best", (order[1], metric.key): "second"}
    return [
        Line(
            [name, settings, str(rows[0]["nfe"])],
            [(_range_text(metric, rows), marks.get((i, metric.key), "")) for metric in COLUMNS],
        )
        for i, (name, rows, settings) in enumerate(groups)
    ]


def _range_text(metric: Metric, rows: list[Row]) -> str:
    values = [row[metric.key] for row in rows]
    text = metric.text(float(np.mean(values)))
    if len(values) == 1:
        return text
    return f"{text} ({metric.text(min(values))}\N{EN DASH}{metric.text(max(values))})"


def markdown(summary: dict[str, Any]) -> str:
    """Table 1 and how it was made, as Markdown: the best of a column bold, the second underlined."""
    wrap = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
    rows = [line.first + [wrap[mark].format(text) for text, mark in line.metrics] for line in lines(summary)]
    body = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in body) + "\n"


def draw(summary: dict[str, Any]) -> Iterator[Picture]:
    """Both trade-offs of all methods, then two panels an ablation."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        for x, y in ((IS, FD), (RECALL, PRECISION)):
            yield _tradeoff(summary, x, y)
        for ablation in summary["ablations"]:
            for metric in (FD, IS):
                yield _ablation(ablation, metric)


def _tradeoff(summary: dict[str, Any], x: Metric, y: Metric) -> Picture:
    """The paper's Figure 4 (c, f): every method over training (first seed), CFG over guidance."""
    fig, ax = axes((6.2, 5.2), f"{y.title} against {x.title}", axis_title(x), axis_title(y))
    curves = {name: method["runs"][0]["curve"] for name, method in summary["methods"].items()}
    base = next(iter(curves.values()))[0]
    ax.plot(*points([base, *summary["guided"]], x.key, y.key), "*--", color=GUIDED, ms=7, label="CFG")
    for name, rows in curves.items():
        color, marker = LOOKS[name]
        ax.plot(*points(rows, x.key, y.key), marker=marker, color=color, ms=4, label=NAMES[name])
    ax.plot(base[x.key], base[y.key], "o", color=BASE, ms=7, label="Base", zorder=5)
    finish(fig, ax, y)
    methods = ", ".join(NAMES[name] for name in curves)
    alt = f"{y.title} against {x.title}: CFG over guidance, and {methods} over training."
    return picture(fig, f"table-tradeoff-{y.key}-{x.key}", alt)


def _ablation(ablation: dict[str, Any], metric: Metric) -> Picture:
    """One metric over images seen, a curve a value of the option."""
    option, name = ablation["option"].replace("_", " "), NAMES[ablation["objective"]]
    fig, ax = axes((4.4, 3.5), f"{name}: {metric.title} by {option}", "Images seen", axis_title(metric))
    for entry, color in zip(ablation["runs"], SHADES, strict=False):
        label = f"{option} {entry['settings'][ablation['option']]:g}"
        ax.plot(*points(entry["rows"], "images_seen", metric.key), "o-", color=color, ms=4, label=label)
    finish(fig, ax, metric)
    ax.xaxis.set_major_formatter(count_formatter())
    stem = f"table-{ablation['objective']}-{ablation['option']}-{metric.key}"
    values = ", ".join(f"{value:g}" for value in ablation["values"])
    return picture(fig, stem, f"{metric.title} of {name} over images seen, for {option} {values}.")


def _page(summary: dict[str, Any], pictures: list[Picture]) -> str:
    body = [
        (line.first + [text for text, _ in line.metrics], line.metrics[0][1] == "best")
        for line in lines(summary)
    ]
    return page(
        f"Table: {summary['recipe']}",
        f'<p class="note">{escape(how(summary))}</p>\n',
        table(HEAD, [body]),
        section(
            "Trade-offs", "The paper's Figure 4: from the base, over training or guidance.", pictures[:2]
        ),
        section("Ablations", "One seed, the shorter evaluations of the grid.", pictures[2:]),
        "<h2>The grid</h2>\n",
        bullets(grid_sentences(summary)),
    )


def how(summary: dict[str, Any]) -> str:
    """How the figures came about, in words."""
    chose, judged = (
        f"{first:,} to {last:,}" for first, last in (summary["protocol"]["seeds"], summary["judged_on"])
    )
    seeds = ", ".join(map(str, summary["seeds"]))
    return (
        f"Each method at the best of its grid, training seeds {seeds}: the checkpoint of lowest FD on "
        f"sampling seeds {chose}, judged on seeds {judged}. Means over training seeds, in brackets lowest "
        "and highest; base and guidance have no training seed. "
        f"{summary['seconds'] / 60:.0f} minutes in all on {summary['versions']['device']}."
    )


def grid_sentences(summary: dict[str, Any]) -> Iterator[str]:
    """What was tried of each method, with the lowest FD of each try."""
    for name, method in summary["methods"].items():
        tries = "; ".join(
            f"{settings_text(entry['settings'])}: FD {FD.text(entry['fd'])}" for entry in method["grid"]
        )
        yield f"{NAMES[name]} tried {tries}."
