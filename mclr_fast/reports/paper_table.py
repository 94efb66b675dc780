"""The paper's Table 1, and a run's own rows beside it, measured by the same protocols or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mclr_fast.evaluation.rows import Row

from .run_data import RunData
from .words import KINDS, objective_title

FILE = Path(__file__).parent.parent / "assets" / "paper-table1.json"
DASH, NBSP = "\N{EN DASH}", "\N{NO-BREAK SPACE}"
USUAL_SAMPLES = 50_000  # of FDs in the literature


@dataclass(frozen=True)
class Column:
    """A metric of the table; protocol: which of a row's metrics it is (`evaluation` names them)."""

    key: str
    title: str
    arrow: str
    protocol: str
    digits: int

    def of(self, row: Row) -> float | None:
        """The row's value by this protocol; None where it was measured by another, or not."""
        return row.metrics.get(self.protocol, {}).get(self.key)

    def text(self, value: float | None) -> str:
        """As the paper prints it."""
        return DASH if value is None else f"{value:,.{self.digits}f}"


@dataclass(frozen=True)
class PaperRow:
    """A line of the table: method is "base", "cfg" or an objective; line: as it is printed in the paper."""

    method: str
    nfe: int
    values: dict[str, float]
    line: str


@dataclass(frozen=True)
class PaperGroup:
    """The rows of one base; recipe: ours for it."""

    data: str
    recipe: str
    rows: Sequence[PaperRow]

    @property
    def base(self) -> str:
        """The base's name in the paper."""
        return self.rows[0].line.split()[0]


@dataclass(frozen=True)
class PaperTable:
    """Table 1 whole."""

    paper: str
    caption: str
    columns: Sequence[Column]
    groups: Sequence[PaperGroup]

    def group_of(self, recipe: str) -> PaperGroup | None:
        """The rows of the same images as a recipe's; None where the paper has none."""
        return next((g for g in self.groups if _images_of(g.recipe) == _images_of(recipe)), None)


def _images_of(recipe: str) -> str:
    """edm2-img64-s, edm2-img64-s-search: edm2-img64; all VARs: var."""
    family, *rest = recipe.split("-")
    return family if family == "var" else "-".join([family, *rest[:1]])


@cache
def paper_table() -> PaperTable:
    """Read the table that ships with the package."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    columns = [Column(key, **column) for key, column in content["columns"].items()]

    def row(entry: dict[str, Any]) -> PaperRow:
        values = {column.key: entry[column.key] for column in columns}
        return PaperRow(entry["method"], entry["nfe"], values, entry["line"])

    groups = [PaperGroup(g["data"], g["recipe"], list(map(row, g["rows"]))) for g in content["groups"]]
    return PaperTable(content["paper"], content["caption"], columns, groups)


def own_rows(run: RunData) -> dict[str, Row]:
    """Method -> the run's row for it, the final one where there is one.

    The base, guidance at its best FD, the kept checkpoint, that under guidance at its best FD, the control.
    """
    fd, final = paper_table().columns[0], {row.kind: row for row in run.summary.final}

    def lowest(rows: Sequence[Row]) -> Row | None:
        return min((row for row in rows if fd.of(row) is not None), key=fd.of, default=None)

    found = {
        "base": final.get("base", run.base),
        "cfg": final.get("guidance", lowest(run.guided)),
        run.objective: final.get("trained", run.best),
        "guided": final.get("guided", lowest(run.guided_best)),
        "control": final.get("control", run.control[-1] if run.control else None),
    }
    return {method: row for method, row in found.items() if row is not None}


def head() -> list[str]:
    """The headings of `body`."""
    return ["Method", "Whose", "Network calls", *(f"{c.title} {c.arrow}" for c in paper_table().columns)]


def body(run: RunData) -> list[list[tuple[list[str], bool]]]:
    """A group a method: the paper's line and, marked, this run's; what the paper lacks comes last."""
    table, group = paper_table(), paper_table().group_of(run.summary.recipe)
    own, lines = own_rows(run), []
    for paper in group.rows:
        name = _name(paper.method, group)
        values = [column.text(paper.values[column.key]) for column in table.columns]
        lines.append([([name, "the paper", str(paper.nfe), *values], False)])
        if (row := own.pop(paper.method, None)) is not None:
            lines[-1].append((_own_cells(run, paper.method, row), True))
    rest = [(_own_cells(run, method, row), True) for method, row in own.items()]
    return [*lines, rest] if rest else lines


def _own_cells(run: RunData, method: str, row: Row) -> list[str]:
    name = {
        "base": "Base",
        "cfg": f"+ CFG {row.guidance:g}",
        "guided": f"+ {run.title} + CFG {row.guidance:g}",
        "control": f"+ {KINDS['control']}",
    }
    values = [column.text(column.of(row)) for column in paper_table().columns]
    return [name.get(method, f"+ {run.title}"), "this run", str(row.nfe), *values]


def _name(method: str, group: PaperGroup) -> str:
    return {"base": group.base, "cfg": "+ CFG"}.get(method, f"+ {objective_title(method)}")


def words(run: RunData) -> Iterator[str]:
    """What of the two compares, and what does not."""
    table, group = paper_table(), paper_table().group_of(run.summary.recipe)
    fd, own = table.columns[0], own_rows(run)
    measured = [row for row in own.values() if any(column.of(row) is not None for column in table.columns)]
    if not measured:
        yield (
            f"Nothing of this run stands beside the paper's yet: its columns are measured by "
            f"{_listed(dict.fromkeys(c.protocol for c in table.columns))}, and no row of this run was."
        )
    elif group.recipe not in (run.summary.recipe, run.summary.recipe.removesuffix("-search")):
        yield (
            f"The paper's base is {group.base}, {run.summary.recipe}'s another: this run's rows compare with "
            "each other alone."
        )
    elif (base := own.get("base")) is not None and fd.of(base) is not None:
        paper = group.rows[0].values[fd.key]
        yield (
            f"Compare the bases first: {fd.title} {fd.text(fd.of(base))} here, {fd.text(paper)} in the paper "
            f"({(fd.of(base) - paper) / paper:+.1%}). While they differ by more than seeds do, no other "
            "row compares with the paper's, only with this run's base."
        )
    for count in sorted({row.samples for row in measured if row.samples < USUAL_SAMPLES}):
        yield (
            f"Rows of {count:,} samples: FD grows as samples get fewer, so they compare with each other, not "
            f"with FDs of {USUAL_SAMPLES:,}."
        )
    paper_calls = {row.method: row.nfe for row in group.rows}
    if any(method in paper_calls and row.nfe != paper_calls[method] for method, row in own.items()):
        yield "Where network calls differ, so does the sampler: such rows compare with this run's alone."
    judged_on = "fresh samples, once others chose" if run.summary.final else "the samples that chose"
    yield (
        "The paper reports every method at its best FD-DINOv2, CFG over its strengths; so does this run, on "
        f"{judged_on}. The paper does not say how many samples it scores, of which seeds, which averages its "
        "bases are, which network guides them, nor its learning rates, N and K."
    )
    yield f"{table.paper}, {table.caption}"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
