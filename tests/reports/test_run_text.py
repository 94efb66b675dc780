"""What the report says in words, and which rows it shows."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from run_folders import (
    headline_of,
    make_row,
    make_run,
    make_summary,
)

from mclr_fast.reports import run_data as report_data
from mclr_fast.reports import run_text as report_text
from mclr_fast.reports.figures import grid as figures_grid
from mclr_fast.reports.figures.grid import draw_grid
from mclr_fast.reports.figures.style import styled
from mclr_fast.reports.grid import GridEntry, write_grid
from mclr_fast.reports.summary import Summary
from mclr_fast.reports.words import FD
from mclr_fast.runtime import formats


def test_a_metric_that_fell_is_called_worse(tmp_path):
    best = make_row("mclr", 320, fd=0.3, recall=0.9)
    run = report_data.read_run(make_run(tmp_path, make_summary(rows=[make_row("base"), best], best=best)))
    assert {tile.title[:6]: tile.verdict for tile in report_text.tiles(run)}["Recall"] == "worse"


def test_a_classifiers_verdicts_stand_below_the_images(tmp_path):
    """Kept in grid.npz; in words on the page; nothing of them without a classifier."""
    images = np.zeros((1, 3, 1, 4, 4), np.uint8)
    entry = GridEntry("base", "base", 0, 1.0, None, images, np.array([[0, 1, 7]]))
    make_run(tmp_path, make_summary(), log=False)
    write_grid(tmp_path, [entry, replace(entry, name="mclr", kind="trained", images_seen=640, verdicts=None)])
    run = report_data.read_run(tmp_path)
    assert run.grid[0].verdicts.tolist() == [[0, 1, 7]] and run.grid[1].verdicts is None
    assert "the class asked for, and what the classifier" in report_text.grid_note(run)
    with styled():
        with_verdicts = draw_grid(run, 0, run.grid)
        without = draw_grid(run, 0, [replace(entry, verdicts=None) for entry in run.grid])
    assert with_verdicts.png != without.png and not with_verdicts.is_chart


@pytest.mark.parametrize("is_judged", [True, False])
def test_names_below_the_images_cover_no_other(tmp_path, monkeypatch, is_judged):
    """Ten names of clothes, each taken for the next one: as wide together as their tiles."""
    clothes = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Running shoe or boot,Bag"
    found = np.roll(np.arange(10), -1)[None] if is_judged else None
    entry = GridEntry("base", "base", 0, 1.0, None, np.zeros((1, 10, 1, 32, 32), np.uint8), found)
    make_run(tmp_path, make_summary(grid_classes=list(range(10)), grid_names=clothes.split(",")), log=False)
    write_grid(tmp_path, [entry])
    figures = []
    monkeypatch.setattr(figures_grid, "picture", lambda fig, *_, **__: figures.append(fig))
    with styled():
        draw_grid(report_data.read_run(tmp_path), 0, [entry])
        figures[0].draw_without_rendering()
    (ax,) = figures[0].axes
    boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert ("\u2192 Trouser" in ax.get_xticklabels()[0].get_text()) == is_judged


def test_energies_are_explained_where_they_rise(tmp_path):
    make_run(tmp_path, make_summary())
    lines = [
        {"arm": "mclr", "images_seen": n, "loss": 0.0, "positive": 1.0 + n, "negative": 1.5 + 3 * n}
        for n in range(4)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = report_text.loss_note(report_data.read_run(tmp_path))
    assert "Wrong minus right: 0.5 over the first tenth of the log, 6.5 over the last." in text
    assert "rewards the difference, and" in text


def test_says_so_when_fd_did_not_improve(tmp_path):
    worse = make_row("mclr", 320, fd=0.52)
    rows = [make_row("base"), worse]
    sentence = headline_of(make_run(tmp_path, make_summary(rows=rows, best=worse)))
    assert sentence.startswith("MCLR did not lower FD in this run")
    assert "Fréchet distance (FD) 0.410 → 0.520" in sentence


def test_nan_counts_as_missing(tmp_path):
    rows = [make_row("base"), make_row("mclr", 320, fd=float("nan"))]
    sentence = headline_of(make_run(tmp_path, make_summary(rows=rows, best=None)))
    assert sentence.startswith("MCLR, 320 images seen: IS 8.20 → 8.20, precision")


def test_a_line_logged_again_after_a_resume_replaces_the_first(tmp_path):
    make_run(tmp_path, make_summary())
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"arm": "mclr", "images_seen": 64, "loss": 7.0}\n{"arm": "mcl')
    log = report_data.read_run(tmp_path).log["mclr"]
    assert [line.images_seen for line in log] == [32, 64, 96]
    assert log[1].loss == 7.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0.4096, "0.410"), (4.04, "4.04"), (12.4, "12.4"), (712, "712")],
)
def test_fd_text(value, text):
    assert FD.text(value) == text


def test_a_long_grid_is_thinned_and_keeps_the_best(tmp_path):
    names = ["base", *(f"cfg-{g}" for g in (1.1, 1.2, 1.5, 2, 3)), *(f"mclr-{n}" for n in range(10, 110, 10))]
    summary = Summary.from_json(formats.summary(make_summary(best=make_row("mclr", 20))))
    make_run(tmp_path, summary.to_json(), log=False, grid=names)
    shown = [entry.key for entry in report_data.read_run(tmp_path).shown_grid]
    assert shown[0] == "base"
    assert [name for name in shown if "cfg" in name] == ["cfg-1.1", "cfg-1.2", "cfg-2", "cfg-3"]
    assert [name for name in shown if "mclr" in name] == [
        "mclr-10",
        "mclr-20",
        "mclr-40",
        "mclr-70",
        "mclr-100",
    ]
