"""A run's report, written again from what it left, or several runs': `python -m mclr_fast.report RUN...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mclr_fast.reports.run_data import read_summary
from mclr_fast.reports.run_page import write_report
from mclr_fast.reports.several_page import write_page
from mclr_fast.reports.table_page import write_table_report
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.talk import safe_streams

EXAMPLE = """examples:
  python -m mclr_fast.report runs/mnist16
  python -m mclr_fast.report runs/lr-1e-4 runs/lr-1e-5 runs/cca --outdir compared
"""


@safe_streams()
def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, write the report and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m mclr_fast.report",
        description="Write report.html and figures/*.png from a run's summary.json, log.jsonl and "
        "grid.npz. The page is one file that opens offline. Of several runs, judged by one protocol, it lays "
        "the curves over each other and has one table.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="the --outdir of a run")
    parser.add_argument("--outdir", type=Path, help="where the page of several runs goes; default: compared")
    options = parser.parse_args(given(argv))
    if options.outdir is not None and len(options.runs) == 1:
        parser.exit(2, "error: --outdir is for the page of several runs; one run's lies in its own folder.\n")
    try:
        page = _write(options.runs, options.outdir or Path("compared"))
    except (FileNotFoundError, ValueError, RunError) as error:
        parser.exit(2, f"error: {error}\n")
    print(page)


def _write(runs: Sequence[Path], outdir: Path) -> Path:
    """The page of one run, in its folder, or of several, in outdir."""
    if len(runs) > 1:
        if (outdir / "summary.json").exists():
            raise ValueError(f"--outdir {outdir} is a run's folder, whose report this would replace.")
        return write_page(runs, outdir)
    is_table = isinstance(read_summary(runs[0]), TableSummary)
    return (write_table_report if is_table else write_report)(runs[0])


if __name__ == "__main__":
    main()
