"""The report of a run: one HTML page that opens offline, and its figures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

from . import report_text
from .checkpoint import replacing
from .figures import Picture, draw
from .report_data import COLUMNS, CURVES, FD, Row, Run, read_run
from .report_text import change, interval_text

DASH = "\N{EN DASH}"
STYLE = """
body { margin: 2rem auto; max-width: 66rem; padding: 0 1rem; background: #fff; color: #222;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h1 + p { margin: .2rem 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
.headline { font-size: 1.25rem; line-height: 1.4; margin: 1rem 0; padding: .6rem 1rem;
  border-left: .3rem solid #D55E00; background: #faf7f4; }
.note { color: #555; font-size: .92rem; max-width: 56rem; } ul.note { padding-left: 1.2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr));
  gap: 1rem 1.5rem; }
.figures img { width: 100%; max-width: 40rem; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; min-width: min(100%, 52rem);
  font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; } thead th { border-bottom: 2px solid #999;
  vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tbody { border-bottom: 1px solid #ccc; } tbody th { font-weight: normal; white-space: nowrap; }
tr.best th, tr.best td { background: #fde8d7; font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { margin: 1rem auto; } th, td { padding: .2rem .45rem; }
  table { font-size: .85rem; } .headline { font-size: 1.1rem; } dl { display: block; }
  dd { margin-bottom: .4rem; } }
@media print { body { margin: 0; max-width: none; font-size: 9.5pt; } table { font-size: 8pt; }
  th, td { padding: .1rem .4rem; } .figures { grid-template-columns: 1fr 1fr; }
  img, tr, .headline { break-inside: avoid; } h2, h2 + .note { break-after: avoid; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; } }
"""


def write_report(outdir: Path) -> Path:
    """Write figures/*.png and report.html from what the run left in `outdir`; return the page.

    Reads summary.json and, where they exist, log.jsonl and grid.npz. Each file is replaced whole.
    Errors: FileNotFoundError or ValueError for the summary, as `read_run` says; RunError where
    nothing can be written.
    """
    run = read_run(outdir)
    pictures = draw(run)
    page = outdir / "report.html"
    files = {outdir / "figures" / f"{p.name}.png": p.png for p in chain(*pictures.values())}
    for path, content in {**files, page: _page(run, pictures).encode()}.items():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return page


def _page(run: Run, pictures: dict[str, list[Picture]]) -> str:
    recipe = escape(str(run.summary["recipe"]))
    title = f"{escape(run.title)}: {recipe}"
    grid = _section("Samples from the same noise", report_text.grid_note(run), pictures["grid"])
    tradeoffs = _section("Trade-offs", report_text.tradeoff_note(run), pictures["tradeoffs"])
    metrics = _section("Metrics over images seen", report_text.metrics_note(run), pictures["metrics"])
    loss = _section("Training loss", "", pictures["loss"])
    body = [_table(run), tradeoffs, metrics] if run.base else [metrics, _table(run), tradeoffs]
    sections = [_proof(run), grid, *body, loss, _measured(run)]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="note">{escape(report_text.subtitle(run))}</p>
<p class="headline">{escape(report_text.headline(run))}</p>
{_list(report_text.verdicts(run))}
{"".join(sections)}</body>
</html>
"""


def _section(heading: str, note: str, pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    images = "\n".join(
        f'<img alt="{escape(p.alt)}" src="data:image/png;base64,{b64encode(p.png).decode()}">'
        for p in pictures
    )
    note = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f'<h2>{heading}</h2>\n{note}<div class="figures">\n{images}\n</div>\n'


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="note">\n{items}</ul>' if items else ""


def _proof(run: Run) -> str:
    """One line a seed: the FDs, the two intervals, the other metrics' changes."""
    if not run.proof:
        return ""
    minus = f"{run.title} \N{MINUS SIGN}"
    head = ["Seed", "Result", "FD base", "FD control", f"FD {run.title}"]
    head += [f"{minus} base", f"{minus} control"]
    head += [f"{m.title} {m.arrow}" for m in CURVES[1:]]

    def cells(entry: dict[str, Any]) -> list[str]:
        base, control, best = (entry[arm] for arm in ("base", "denoising", run.objective))
        return [
            str(entry["seed"]),
            "passed" if entry["passed"] else "not passed",
            *(FD.text(row.get("fd")) for row in (base, control, best)),
            *(interval_text(entry[f"fd_minus_{arm}"]) for arm in ("base", "denoising")),
            *(change(m, base, best) for m in CURVES[1:]),
        ]

    body = [(cells(entry), False) for entry in run.proof]
    note = (
        "Passed: both differences of FD have their 95% interval (in brackets) below 0, with higher "
        "IS and precision than the base and the control. The samples' seeds were not used to "
        "choose the checkpoint. Samples and curves: the report of each seed's own run."
    )
    return f'<h2>Proof</h2>\n<p class="note">{note}</p>\n{_html_table(head, [body])}'


def _table(run: Run) -> str:
    """Every evaluation; a group a model, the kept checkpoint marked."""
    groups = [run.rows("real"), run.rows("base"), run.guided, run.control, run.trained]
    rows = [row for group in groups for row in group]
    if not rows:
        return ""
    columns = [m for m in COLUMNS if any(row.get(m.key) is not None for row in rows)]
    head = ["Model", "Images seen", "Network calls", *(f"{m.title} {m.arrow}" for m in columns)]

    def cells(row: Row) -> list[str]:
        name = run.label(row["name"]) + (" ★ best FD" if run.is_best(row) else "")
        counts = (f"{row[key]:,}" if row.get(key) else DASH for key in ("images_seen", "nfe"))
        return [name, *counts, *(m.text(row.get(m.key)) for m in columns)]

    body = [[(cells(row), run.is_best(row)) for row in group] for group in groups if group]
    return f"<h2>Numbers</h2>\n{_html_table(head, body)}{_list(report_text.words(run))}\n"


def _html_table(head: Sequence[str], body: Sequence[Sequence[tuple[list[str], bool]]]) -> str:
    """`body` holds groups of (cells, marked); a row's first cell is its heading."""

    def line(cells: Sequence[str], marked: bool) -> str:
        rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
        mark = ' class="best"' if marked else ""
        return f'<tr{mark}><th scope="row">{escape(cells[0])}</th>{rest}</tr>\n'

    heading = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    groups = "".join(f"<tbody>\n{''.join(line(*row) for row in group)}</tbody>\n" for group in body)
    return f'<div class="scroll"><table>\n<thead><tr>{heading}</tr></thead>\n{groups}</table></div>\n'


def _measured(run: Run) -> str:
    items = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>\n" for term, text in report_text.measured(run)
    )
    return f"<h2>How this was measured</h2>\n<dl>\n{items}</dl>\n"
