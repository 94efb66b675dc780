"""Figures depend on no display and on no variable of a notebook's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    pages = {(folder / "report.html").read_text() for folder in programs}
    assert len(pages) == 1 and "data:image/png" in pages.pop()


def test_a_backend_that_is_here_is_still_the_programs_own():
    """A program that draws on its own after a report has the MPLBACKEND that it was given."""
    program = (
        "from mclr_fast.reports.figures import styled\n"
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
