"""The samples of a run from the same few initial noises: grid.npz, written and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mclr_fast.evaluation.rows import Kind, Row
from mclr_fast.runtime import formats
from mclr_fast.runtime.files import replacing

ORDER, ABOUT = "order", "about"  # names of the other arrays, in the order to be shown; JSON: what they are
VERDICTS = "verdicts of "  # before an array's name: what the classifier takes its images for


@dataclass(frozen=True, eq=False)
class GridEntry:
    """One model's samples, uint8 [noises, classes, C, H, W]; the rest as in its row.

    verdicts: the class that the run's classifier takes each for, int64 [noises, classes]; None without one.
    """

    name: str
    kind: Kind
    images_seen: int
    guidance: float
    strength: float | None
    images: np.ndarray
    verdicts: np.ndarray | None = None

    @classmethod
    def of(cls, row: Row, images: np.ndarray, verdicts: np.ndarray | None = None) -> GridEntry:
        """The samples of what this row scored."""
        return cls(row.name, row.kind, row.images_seen, row.guidance, row.strength, images, verdicts)

    def meaning(self) -> dict[str, Any]:
        """What its array is, as JSON."""
        return {name: value for name, value in vars(self).items() if name not in ("images", "verdicts")}

    @property
    def key(self) -> str:
        """Its array's name in the file."""
        return f"{self.name}-{self.images_seen}" if self.images_seen else self.name


def sheet(images: np.ndarray) -> np.ndarray:
    """A grid as one picture: uint8 [noises, classes, C, H, W] -> [noises * H, classes * W, C]."""
    noises, classes, channels, height, width = images.shape
    return images.transpose(0, 3, 1, 4, 2).reshape(noises * height, classes * width, channels)


def write_grid(outdir: Path, entries: Sequence[GridEntry]) -> None:
    """Write outdir/grid.npz in this order, whole or not at all; nothing where there is no entry."""
    if not entries:
        return
    arrays = {entry.key: entry.images for entry in entries}
    verdicts = {VERDICTS + entry.key: entry.verdicts for entry in entries if entry.verdicts is not None}
    about = {"format": formats.GRID_FORMAT, "entries": [entry.meaning() for entry in entries]}
    with replacing(outdir / "grid.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, **{ORDER: np.array(list(arrays)), ABOUT: json.dumps(about)}, **arrays, **verdicts
        )


def read_grid(outdir: Path, objective: str) -> list[GridEntry]:
    """What `write_grid` wrote, in its order; [] where there is no file.

    objective: what the run trained with, without which names of format 1 cannot be understood.
    """
    path = outdir / "grid.npz"
    if not path.is_file():
        return []
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays[ORDER].tolist()
        about = json.loads(str(arrays[ABOUT])) if ABOUT in arrays else {}
        meaning = formats.grid(about, names, objective, path)
        entries = [{"strength": None, **entry} for entry in meaning]
        known = ("name", "kind", "images_seen", "guidance", "strength")
        return [
            GridEntry(
                **{field: entry[field] for field in known},
                images=arrays[name],
                verdicts=arrays.get(VERDICTS + name),
            )
            for name, entry in zip(names, entries, strict=True)
        ]
