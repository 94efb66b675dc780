"""The report of a run: one HTML page that opens offline, and its figures."""

from __future__ import annotations

from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

from mclr_fast.runtime.files import replacing

from . import run_text as report_text
from .figures import Picture, draw
from .html_page import bullets, page, section, table
from .run_data import COLUMNS, CURVES, FD, Row, Run, read_run
from .run_text import change, interval_text

DASH = "\N{EN DASH}"


def write_report(outdir: Path) -> Path:
    """Write figures/*.png and report.html from what the run left in `outdir`; return the page.

    Reads summary.json and, where they exist, log.jsonl and grid.npz. Each file is replaced whole.
    Errors: FileNotFoundError or ValueError for the summary, as `read_run` says; RunError where
    nothing can be written.
    """
    run = read_run(outdir)
    pictures = draw(run)
    target = outdir / "report.html"
    files = {outdir / "figures" / f"{p.name}.png": p.png for p in chain(*pictures.values())}
    for path, content in {**files, target: _page(run, pictures).encode()}.items():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return target


def _page(run: Run, pictures: dict[str, list[Picture]]) -> str:
    title = f"{run.title}: {run.summary['recipe']}"
    grid = section("Samples from the same noise", report_text.grid_note(run), pictures["grid"])
    tradeoffs = section("Trade-offs", report_text.tradeoff_note(run), pictures["tradeoffs"])
    metrics = section("Metrics over images seen", report_text.metrics_note(run), pictures["metrics"])
    loss = section("Training loss", "", pictures["loss"])
    body = [_table(run), tradeoffs, metrics] if run.base else [metrics, _table(run), tradeoffs]
    sections = [_proof(run), grid, *body, loss, _measured(run)]
    return page(
        title,
        f'<p class="note">{escape(report_text.subtitle(run))}</p>\n',
        f'<p class="headline">{escape(report_text.headline(run))}</p>\n',
        bullets(report_text.verdicts(run)),
        *sections,
    )


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
    return f'<h2>Proof</h2>\n<p class="note">{note}</p>\n{table(head, [body])}'


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
    return f"<h2>Numbers</h2>\n{table(head, body)}{bullets(report_text.words(run))}\n"


def _measured(run: Run) -> str:
    items = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>\n" for term, text in report_text.measured(run)
    )
    return f"<h2>How this was measured</h2>\n<dl>\n{items}</dl>\n"
