"""The words of a report, each in one table: metrics, objectives, and what a row or a run is."""

from __future__ import annotations

from typing import NamedTuple

from mclr_fast.evaluation.rows import Kind, Row

from .grid import GridEntry

OBJECTIVES = {
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
KINDS: dict[Kind, str] = {
    "real": "Real images",
    "base": "Base",
    "guidance": "CFG",
    "control": "Control (denoising)",
    "trained": "",  # its objective's
    "guided": "Best + CFG",
    "dial": "Dial",
}
# What a comparison is with, by the name of the other row.
AGAINST = {"base": "the base", "denoising": "the denoising control"}
END = "end"  # the run's own last evaluation, where FD turned before it
FINE_TUNING = "Fine-tuning a class-conditional generator so that its unguided samples look guided."
# What a run is for, where it is not that.
PURPOSES = {"denoising": "Training a class-conditional generator with the denoising loss."}


class Metric(NamedTuple):
    """A column of the table: its key in a row, its heading, where better lies and how it is printed."""

    key: str
    title: str
    arrow: str
    digits: int = 3
    is_distance: bool = False

    def of(self, row: Row) -> float | None:
        """The row's value, see `Row.values`; None where it was not measured."""
        return row.values.get(self.key)

    def text(self, value: float | None) -> str:
        """The value as printed everywhere: distances with 3 digits in all, missing as an en dash."""
        if value is None:
            return "\N{EN DASH}"
        if self.is_distance and value >= 1:
            return f"{value:#.3g}" if value < 100 else f"{value:,.0f}"
        return f"{value:.{self.digits}f}"


FD = Metric("fd", "FD", "↓", is_distance=True)
IS = Metric("is", "IS", "↑", digits=2)
PRECISION = Metric("precision", "Precision", "↑")
RECALL = Metric("recall", "Recall", "↑")
CURVES = (FD, IS, PRECISION, RECALL)
COLUMNS = (
    FD,
    Metric("fd_heldout", "FD held out", "↓", is_distance=True),
    IS,
    PRECISION,
    RECALL,
    Metric("accuracy", "Accuracy", "↑"),
)


def objective_title(name: str) -> str:
    """An objective as readers know it."""
    return OBJECTIVES.get(name, name)


def label(row: Row | GridEntry) -> str:
    """What a row is called in tables and pictures."""
    if row.kind == "trained":
        return objective_title(row.name)
    strength = {"guidance": row.guidance, "guided": row.guidance, "dial": row.strength}.get(row.kind)
    return KINDS[row.kind] + (f" {strength:g}" if strength is not None else "")
