"""What a run left in its folder, as the report reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mclr_fast.evaluation.rows import Kind, Row
from mclr_fast.runtime import formats

from .grid import GridEntry, read_grid
from .summary import Summary
from .table_summary import TableSummary
from .words import objective_title

BEST = "checkpoints/best"  # the kept model, in a run's folder
SHOWN = 4  # entries of a kind in the same-noise grid
IMAGES_SEEN = attrgetter("images_seen")
T = TypeVar("T")


@dataclass(frozen=True)
class LogLine:
    """A line of log.jsonl; energies of the right labels and of the wrong ones, where there are any."""

    images_seen: int
    loss: float | None
    positive: float | None = None
    negative: float | None = None


@dataclass(frozen=True)
class RunData:
    """A run's summary, its log by arm and its grid of same-noise samples, in the order to be shown.

    outdir: its folder, as it was named; options: config.json's; model: the config.json of its best model.
    """

    summary: Summary
    log: dict[str, list[LogLine]]
    grid: list[GridEntry]
    outdir: Path = Path()
    options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """What the run trained with; also the name of its arm in the log."""
        return self.summary.objective

    @property
    def title(self) -> str:
        """The objective as readers know it."""
        return objective_title(self.objective)

    @property
    def base(self) -> Row | None:
        """The pretrained model; None when the run trains one."""
        return next(iter(self.rows("base")), None)

    @property
    def guided(self) -> list[Row]:
        """The base under guidance, weakest first."""
        return sorted(self.summary.of("guidance"), key=lambda row: row.guidance)

    @property
    def control(self) -> list[Row]:
        """The base trained on with its own loss, over training."""
        return self.rows("control")

    @property
    def trained(self) -> list[Row]:
        """The evaluations of this run's own model, over training."""
        return self.rows("trained")

    @property
    def guided_best(self) -> list[Row]:
        """The best model under guidance, weakest first."""
        return sorted(self.summary.of("guided"), key=lambda row: row.guidance)

    @property
    def dial(self) -> list[Row]:
        """What lies between the base and the best model, and beyond, weakest first."""
        return sorted(self.summary.of("dial"), key=lambda row: row.strength)

    @property
    def best(self) -> Row | None:
        """The row of the checkpoint that was kept."""
        return self.summary.best

    def rows(self, kind: Kind) -> list[Row]:
        """The rows of that kind, by images seen."""
        return sorted(self.summary.of(kind), key=IMAGES_SEEN)

    def is_kept(self, entry: GridEntry) -> bool:
        """Whether these samples are the kept checkpoint's."""
        best = self.best
        return best is not None and (entry.kind, entry.images_seen) == (best.kind, best.images_seen)

    @property
    def shown_grid(self) -> list[GridEntry]:
        """The grid thinned to a page: of guidance, of training, ... each a few, the kept one among them."""
        shown = set(range(len(self.grid)))
        for kind in ("guidance", "trained", "guided", "dial"):
            found = [i for i, entry in enumerate(self.grid) if entry.kind == kind]
            spread = np.linspace(0, len(found) - 1, SHOWN).round().astype(int) if found else ()
            shown -= set(found) - {found[i] for i in spread}
        return [entry for i, entry in enumerate(self.grid) if i in shown or self.is_kept(entry)]

    @property
    def leading_grid(self) -> list[GridEntry]:
        """What is seen first, at most four: the base, guidance at its best FD, the kept one, the last."""
        guided = [row for row in self.guided if row.fd is not None]
        best_guidance = min(guided, key=lambda row: row.fd).guidance if guided else None
        trained = [entry for entry in self.grid if entry.kind == "trained"]

        def leads(entry: GridEntry) -> bool:
            if entry.kind == "guidance":
                return entry.guidance == best_guidance
            return entry.kind == "base" or self.is_kept(entry) or entry in trained[-1:]

        found = [entry for entry in self.grid if leads(entry)]
        return found if len(found) > 1 else self.shown_grid[:SHOWN]


def points(
    rows: Iterable[T], x: Callable[[T], float | None], y: Callable[[T], float | None]
) -> tuple[list[float], list[float]]:
    """The two values of the rows that have both."""
    pairs = [(x(row), y(row)) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    return [a for a, _ in pairs], [b for _, b in pairs]


def read_summary(outdir: Path) -> Summary | TableSummary:
    """What summary.json holds, of any format.

    Errors: FileNotFoundError where there is none; ValueError where it is not a run's summary; RunError for
    a later format than is known here.
    """
    path = outdir / "summary.json"
    if not path.is_file():
        raise FileNotFoundError(f"{outdir} has no summary.json: name the --outdir of a run.")
    try:
        content = _loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the same command again.") from None
    if not isinstance(content, dict) or not {"recipe", "objective", "rows"} <= content.keys():
        raise ValueError(f"{path} is not a run's summary: it lacks recipe, objective or rows.")
    try:
        content = formats.summary(content, path)
        return (TableSummary if content["kind"] == "table" else Summary).from_json(content)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"{path} is not a run's summary ({error}): run the same command again.") from None


def read_run(outdir: Path) -> RunData:
    """Read summary.json and, where they exist, log.jsonl and grid.npz.

    Errors: those of `read_summary`; ValueError where it is a table's.
    """
    summary = read_summary(outdir)
    if not isinstance(summary, Summary):
        raise ValueError(f"{outdir} is a table's folder, not a run's.")
    return RunData(
        summary,
        _read_log(outdir / "log.jsonl"),
        read_grid(outdir, summary.objective),
        outdir,
        _read_json(outdir / "config.json"),
        _read_json(outdir / BEST / "config.json"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    try:
        content = _loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=lambda _: None)  # NaN and Infinity count as missing


def _read_log(path: Path) -> dict[str, list[LogLine]]:
    """Arm -> its lines by images seen; a line written again after a resume replaces the first."""
    arms: dict[str, dict[int, LogLine]] = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = _loads(text)
            except ValueError:  # the run was killed while it wrote
                continue
            values = (line.get(name) for name in ("loss", "positive", "negative"))
            arms.setdefault(line["arm"], {})[line["images_seen"]] = LogLine(line["images_seen"], *values)
    return {arm: [lines[n] for n in sorted(lines)] for arm, lines in arms.items()}
