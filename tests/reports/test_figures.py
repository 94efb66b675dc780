"""Figures depend on no display and on no variable of a notebook's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from mclr_fast.reports.figures.labels import NOTE, keep_clear
from mclr_fast.reports.figures.style import axes, styled

SUMMARY = Path(__file__).parents[1] / "golden" / "zoo" / "finished" / "summary.json"
BACKENDS = ["nonsense", "module://matplotlib_inline.backend_inline", "module://not.here", "TkAgg"]


def test_a_backend_that_is_not_here_changes_no_figure(tmp_path):
    """With MPLBACKEND naming a missing module the report is written, its figures the same to the byte."""
    programs = {}
    for number, backend in enumerate([None, *BACKENDS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(SUMMARY, folder)
        environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        environment |= {"MPLBACKEND": backend} if backend else {}
        command = [sys.executable, "-m", "mclr_fast.report", str(folder)]
        programs[folder] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    for folder, program in programs.items():
        assert (program.communicate()[1], program.returncode) == ("", 0), folder
    pages = {(folder / "report.html").read_text().replace(str(folder), "") for folder in programs}
    assert len(pages) == 1 and "data:image/png" in pages.pop()


def test_a_backend_that_is_here_is_still_the_programs_own():
    """A program that draws on its own after a report has the MPLBACKEND that it was given."""
    program = (
        "from mclr_fast.reports.figures.style import styled\n"
        "with styled(): pass\n"
        "import os, matplotlib; print(matplotlib.get_backend(), os.environ['MPLBACKEND'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MPLBACKEND": "svg"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.lower() == "svg svg\n"


def test_a_word_beside_a_point_covers_no_point_and_no_other_word():
    """Ten points on a tight curve, each with a word: no word lies on a mark, on another word or outside."""
    with styled():
        fig, ax = axes((5, 4), "")
        x = np.linspace(0, 1, 10)
        ax.plot(x, x**2, "o-", ms=4)
        for place, point in enumerate(zip(x, x**2, strict=True)):
            ax.annotate(
                f"{place}.25",
                point,
                xytext=(0, 0),
                textcoords="offset points",
                gid=NOTE,
                ha="center",
                va="center",
            )
        keep_clear(fig, ax)
        fig.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
        marks = ax.transData.transform(np.column_stack([x, x**2]))
        bounds = ax.get_window_extent()
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(bounds.contains(*corner) for box in boxes for corner in (box.min, box.max))
