"""Samples from one initial noise as a picture: a row of tiles a model, what a classifier takes each for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from mclr_fast.reports.grid import GridEntry
from mclr_fast.reports.run_data import RunData
from mclr_fast.reports.words import label

from .style import MUTED, TRAINED, Picture, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_PIXELS = 1000  # of a row's width: more are more than the picture has
WIDTH = 6.4  # inches
FONT = 9  # points of what stands below a tile, where it fits
LETTER = 0.64  # of the font's size: what a letter takes in width, bold as a wrong verdict is
LONGEST = 12  # letters of a line, where a name can be broken


def draw_grid(run: RunData, noise: int, entries: Sequence[GridEntry], suffix: str = "") -> Picture:
    """The paper's Figure 2: one initial noise, columns = classes, rows = models.

    Below an image stands what the run's classifier takes it for, where there is one.
    """
    from matplotlib.figure import Figure

    tiles = [_row_of_tiles(entry.images[noise]) for entry in entries]
    height, width = tiles[0].shape[:2]
    num_classes = len(entries[0].images[noise])
    classes = list(run.summary.grid_classes or range(num_classes))
    names = dict(zip(classes, run.summary.grid_names or map(str, classes), strict=True))
    seeds = run.summary.grid_seeds or ()
    seed = f" (seed {seeds[noise]})" if noise < len(seeds) else ""
    fig = Figure(figsize=(WIDTH, 0.6 + len(tiles) * (0.55 + WIDTH * height / width)), layout="constrained")
    fig.suptitle(f"Noise {noise + 1}{seed}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    middles = (np.arange(num_classes) + 0.5) * width / num_classes - 0.5
    for ax, entry, row in zip(fig.subplots(len(tiles), squeeze=False)[:, 0], entries, tiles, strict=True):
        ax.imshow(row, interpolation="nearest" if width < MANY_PIXELS else "antialiased")
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set_yticks([])
        ax.tick_params(length=0)
        _write_below(ax, middles, names, None if entry.verdicts is None else entry.verdicts[noise])
        _title(ax, entry, run.is_kept(entry))
    marked = [_words(entry, run.is_kept(entry)) for entry in entries]
    alt = f"Samples from one initial noise for {num_classes} classes, by {'; '.join(marked)}."
    return picture(fig, f"grid-{noise + 1}{suffix}", alt, is_chart=False)


def _title(ax: Axes, entry: GridEntry, is_kept: bool) -> None:
    color = {"color": TRAINED} if is_kept else {}
    ax.set_title(_words(entry, is_kept), fontsize=10, fontweight="bold" if is_kept else "normal", **color)


def _words(entry: GridEntry, is_kept: bool) -> str:
    """Its row's name, how far it was trained, whether it is the one that was kept."""
    return (
        "\u2605 " * is_kept + label(entry) + (f", {entry.images_seen:,} images" if entry.images_seen else "")
    )


def _write_below(ax: Axes, middles: np.ndarray, names: Mapping[int, str], found: np.ndarray | None) -> None:
    """What class each tile is of; with verdicts a tick where the classifier finds it, else which it finds.

    Below the name where both would not fit beside each other, and smaller where a name alone would not.
    """
    verdicts = [""] * len(names)
    if found is not None:
        verdicts = [
            "\u2713" if seen == asked else f"\u2192 {names.get(int(seen), seen)}"
            for asked, seen in zip(names, found, strict=True)
        ]
    fitting = 72 * WIDTH / len(names) / (LETTER * FONT)  # letters in a tile's width
    texts = [f"{name} {verdict}".strip() for name, verdict in zip(names.values(), verdicts, strict=True)]
    if max(map(len, texts)) > fitting:
        texts = [
            "\n".join(line for part in parts for line in wrap(part, LONGEST, break_long_words=False))
            for parts in zip(names.values(), verdicts, strict=True)
        ]
    longest = max(len(line) for text in texts for line in text.split("\n"))
    ax.set_xticks(middles, texts)
    for i, text in enumerate(ax.get_xticklabels()):
        text.set_fontsize(min(FONT, FONT * fitting / longest))
        if found is not None:
            is_right = verdicts[i] == "\u2713"
            text.set(color=MUTED if is_right else TRAINED, fontweight="normal" if is_right else "bold")


def _row_of_tiles(images: np.ndarray) -> np.ndarray:
    """[num_classes, C, H, W] -> [H+2, num_classes (W+2), 3] with a white border round each."""
    rgb = np.broadcast_to(images, (len(images), 3, *images.shape[2:]))
    tiles = np.pad(rgb, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    return np.concatenate(list(tiles.transpose(0, 2, 3, 1)), axis=1)
