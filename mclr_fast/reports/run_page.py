"""The report of a run: one HTML page that opens offline, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import chain
from pathlib import Path

from mclr_fast.evaluation.rows import Row
from mclr_fast.runtime.files import replacing

from . import paper_table, run_made
from . import run_text as report_text
from .figures.run import draw
from .figures.style import Picture
from .html_page import bullets, code, fold, heading, page, section, table, terms, tiles
from .run_data import RunData, read_run
from .run_text import change, interval_text
from .summary import SeedResult
from .words import COLUMNS, CURVES, FD, label

DASH = "\N{EN DASH}"
PAPER = "The paper's Table 1"


def write_report(outdir: Path) -> Path:
    """Write figures/*.png and report.html from what the run left in `outdir`; return the page.

    Reads summary.json and, where they exist, log.jsonl and grid.npz. Each file is replaced whole.
    Errors: those of `read_run`; RunError where nothing can be written.
    """
    run = read_run(outdir)
    pictures = draw(run)
    target = outdir / "report.html"
    files = {outdir / "figures" / f"{p.name}.png": p.png for p in chain(*pictures.values())}
    for path, content in {**files, target: _page(run, pictures).encode()}.items():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return target


def _page(run: RunData, pictures: dict[str, list[Picture]]) -> str:
    title = f"{run.title}: {run.summary.recipe}"
    grid = section(
        "Samples from the same noise", report_text.grid_note(run), pictures["grid"], pictures["whole grid"]
    )
    tradeoffs = section("Trade-offs", report_text.tradeoff_note(run), pictures["tradeoffs"])
    metrics = section("Metrics over images seen", report_text.metrics_note(run), pictures["metrics"])
    loss = section("Training loss", report_text.loss_note(run), pictures["loss"])
    body = [_table(run), tradeoffs, metrics] if run.base else [metrics, _table(run), tradeoffs]
    sections = [_proof(run), grid, _words(run), *body, loss, _paper(run), _again(run), _measured(run)]
    return page(
        title,
        f'<p class="note">{escape(report_text.subtitle(run))}</p>\n',
        f'<p class="headline">{escape(report_text.headline(run))}</p>\n',
        tiles(report_text.tiles(run)),
        bullets(report_text.verdicts(run)),
        *sections,
    )


def _words(run: RunData) -> str:
    """What the words mean, for a reader who meets them here; nothing where nothing was measured."""
    if not run.summary.rows:
        return ""
    return f"{heading('What the words mean')}{terms(report_text.words(run))}"


def _again(run: RunData) -> str:
    """How to make the run again, and what to do with its model."""
    command = run.summary.command
    made = code(command) if command else ""
    used = code(*run_made.commands(run))
    options = ((name, str(value)) for name, value in sorted(run.options.items()))
    settings = fold("All settings", terms(options)) if run.options else ""
    return f"{heading('Use it')}{used}{terms(run_made.model(run))}{heading('Make it again')}{made}{settings}"


def _proof(run: RunData) -> str:
    """One line a seed: the FDs, the two intervals, the other metrics' changes."""
    if not run.summary.proof:
        return ""
    minus = f"{run.title} \N{MINUS SIGN}"
    head = ["Seed", "Result", "FD base", "FD control", f"FD {run.title}"]
    head += [f"{minus} base", f"{minus} control"]
    head += [f"{m.title} {m.arrow}" for m in CURVES[1:]]

    def cells(entry: SeedResult) -> list[str]:
        return [
            str(entry.seed),
            "passed" if entry.passed else "not passed",
            *(FD.text(FD.of(row)) for row in (entry.base, entry.control, entry.trained)),
            *(interval_text(interval) for interval in (entry.fd_minus_base, entry.fd_minus_control)),
            *(change(m, entry.base, entry.trained) for m in CURVES[1:]),
        ]

    body = [(cells(entry), False) for entry in run.summary.proof]
    note = (
        "Passed: both differences of FD have their 95% interval (in brackets) below 0, with higher "
        "IS and precision than the base and the control. The samples' seeds were not used to "
        "choose the checkpoint. Samples and curves: the report of each seed's own run."
    )
    return f'{heading("Proof")}<p class="note">{note}</p>\n{table(head, [body])}'


def _table(run: RunData) -> str:
    """Every evaluation; a group a model, the kept checkpoint marked."""
    groups = [run.rows("real"), run.rows("base"), run.guided, run.control, run.trained]
    groups += [run.guided_best, run.dial]
    if not any(groups):
        return ""
    return f"{heading('Numbers')}{_rows(run, groups)}{_final(run)}"


def _final(run: RunData) -> str:
    """The rows of more samples, where there are any."""
    if not run.summary.final:
        return ""
    note = report_text.final_note(run)
    rows = _rows(run, [[row] for row in run.summary.final])
    return f'{heading("Final rows")}<p class="note">{escape(note)}</p>\n{rows}\n'


def _rows(run: RunData, groups: Sequence[Sequence[Row]]) -> str:
    """A table of rows in groups, the kept checkpoint's marked."""
    rows = [row for group in groups for row in group]
    columns = [m for m in COLUMNS if any(m.of(row) is not None for row in rows)]
    head = ["Model", "Images seen", "Network calls", *(f"{m.title} {m.arrow}" for m in columns)]

    def cells(row: Row) -> list[str]:
        name = label(row) + (" ★ best FD" if row == run.best else "")
        counts = (f"{count:,}" if count else DASH for count in (row.images_seen, row.nfe))
        return [name, *counts, *(m.text(m.of(row)) for m in columns)]

    return table(head, [[(cells(row), row == run.best) for row in group] for group in groups if group])


def _paper(run: RunData) -> str:
    """The paper's rows of the same images, this run's beside them; nothing where the paper has none."""
    if paper_table.paper_table().group_of(run.summary.recipe) is None:
        return ""
    rows = table(paper_table.head(), paper_table.body(run), text_columns=1)
    return f"{heading(PAPER)}{rows}{bullets(paper_table.words(run))}\n"


def _measured(run: RunData) -> str:
    return f"{heading('How this was measured')}{terms(run_made.measured(run))}"
