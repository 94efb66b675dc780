"""What a run left in its folder, as the report reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]
SHOWN = 4  # rows of a kind in the same-noise grid
NAMES = {
    "real": "Real images",
    "base": "Base",
    "denoising": "Denoising",
    "mclr": "MCLR",
    "kl-mclr": "KL-MCLR",
    "weighted-mclr": "Weighted MCLR",
    "plus-minus": "p+/p\N{MINUS SIGN}",
    "ccdpo": "CC-DPO",
    "cca": "CCA",
    "ddo": "DDO",
    "gft": "GFT",
    "model-guidance": "Model guidance",
}


class Metric(NamedTuple):
    """A column of the table: its key in a row, its heading and where better lies."""

    key: str
    title: str
    arrow: str
    digits: int = 3

    def text(self, value: float | None) -> str:
        """The value as printed everywhere: FD with 3 digits, missing as an en dash."""
        if value is None:
            return "\N{EN DASH}"
        if self.key.startswith("fd") and value >= 1:
            return f"{value:#.3g}" if value < 100 else f"{value:,.0f}"
        return f"{value:.{self.digits}f}"


FD = Metric("fd", "FD", "↓")
IS = Metric("is", "IS", "↑", digits=2)
PRECISION = Metric("precision", "Precision", "↑")
RECALL = Metric("recall", "Recall", "↑")
CURVES = (FD, IS, PRECISION, RECALL)
COLUMNS = (
    FD,
    Metric("fd_heldout", "FD held out", "↓"),
    IS,
    PRECISION,
    RECALL,
    Metric("accuracy", "Accuracy", "↑"),
)


@dataclass(frozen=True)
class Run:
    """A run's summary, its log by arm and its grid of same-noise samples.

    grid    name -> uint8 [S, num_classes, C, H, W], in the order to be shown
    """

    summary: dict[str, Any]
    log: dict[str, list[Row]]
    grid: dict[str, np.ndarray]

    @property
    def objective(self) -> str:
        """What the run trained with; also the name of its rows."""
        return self.summary["objective"]

    @property
    def title(self) -> str:
        """The objective as readers know it."""
        return NAMES.get(self.objective, self.objective)

    @property
    def proof(self) -> list[dict[str, Any]]:
        """One entry a seed, when the run is a proof."""
        return self.summary.get("proof") or []

    @property
    def base(self) -> Row | None:
        """The pretrained model; None when the run trains one."""
        return next(iter(self.rows("base")), None)

    @property
    def guided(self) -> list[Row]:
        """The base under classifier-free guidance, weakest first."""
        rows = [row for row in self.summary["rows"] if "cfg-" in row["name"]]
        return sorted(rows, key=lambda row: guidance(row["name"]))

    @property
    def control(self) -> list[Row]:
        """The base trained on with the denoising loss."""
        return [] if self.objective == "denoising" else self.rows("denoising")

    @property
    def trained(self) -> list[Row]:
        """The evaluations of this run's own model, over training."""
        return self.rows(self.objective)

    @property
    def best(self) -> Row | None:
        """The row of the checkpoint that was kept."""
        return self.summary.get("best")

    @property
    def best_grid(self) -> str | None:
        """The name of the kept checkpoint's samples in the grid."""
        return self.best and f"{self.best['name']}-{self.best['images_seen']}"

    @property
    def shown_grid(self) -> dict[str, np.ndarray]:
        """The grid thinned to a page: of guidance and of training each a few, the kept one among them."""
        shown = set(self.grid)
        for kind in ("cfg-", f"{self.objective}-"):
            names = [name for name in self.grid if name.startswith(kind)]
            kept = (
                {names[i] for i in np.linspace(0, len(names) - 1, SHOWN).round().astype(int)}
                if names
                else set()
            )
            shown -= set(names) - kept - {self.best_grid}
        return {name: images for name, images in self.grid.items() if name in shown}

    def rows(self, name: str) -> list[Row]:
        """The rows of that name, by images seen."""
        rows = [row for row in self.summary["rows"] if row["name"] == name]
        return sorted(rows, key=lambda row: row["images_seen"])

    def is_best(self, row: Row) -> bool:
        """Whether that row is the kept checkpoint's."""
        return row == self.best

    def label(self, name: str) -> str:
        """How a row's name is printed; a grid's name may end in -<images seen>."""
        stem, _, tail = name.rpartition("-")
        if "cfg-" in name:
            return f"CFG {tail}"
        if name == "denoising" and name != self.objective:
            return "Control (denoising)"
        if stem and tail.isdigit():
            return f"{self.label(stem)}, {int(tail):,} images"
        return NAMES.get(name, name)


def guidance(name: str) -> float:
    """The strength in cfg-<g> (1 = none) or varcfg-<t> (0 = none)."""
    return float(name.rpartition("-")[2])


def points(rows: list[Row], x: str, y: str) -> tuple[list[float], list[float]]:
    """The two columns of the rows that have both."""
    pairs = [(row[x], row[y]) for row in rows if None not in (row.get(x), row.get(y))]
    return [a for a, _ in pairs], [b for _, b in pairs]


def read_run(outdir: Path) -> Run:
    """Read summary.json and, where they exist, log.jsonl and grid.npz.

    Errors: FileNotFoundError without a summary.json; ValueError where it is not a run's summary.
    """
    path = outdir / "summary.json"
    if not path.is_file():
        raise FileNotFoundError(f"{outdir} has no summary.json: name the --outdir of a run.")
    try:
        summary = _loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the same command again.") from None
    if not isinstance(summary, dict) or not {"recipe", "objective", "rows"} <= summary.keys():
        raise ValueError(f"{path} is not a run's summary: it lacks recipe, objective or rows.")
    return Run(summary, _read_log(outdir / "log.jsonl"), _read_grid(outdir / "grid.npz"))


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=lambda _: None)  # NaN and Infinity count as missing


def _read_log(path: Path) -> dict[str, list[Row]]:
    """Arm -> its lines by images seen; a line written again after a resume replaces the first."""
    arms: dict[str, dict[int, Row]] = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = _loads(text)
            except ValueError:  # the run was killed while it wrote
                continue
            arms.setdefault(line["arm"], {})[line["images_seen"]] = line
    return {arm: [lines[n] for n in sorted(lines)] for arm, lines in arms.items()}


def _read_grid(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {str(name): arrays[str(name)] for name in arrays["order"]}
