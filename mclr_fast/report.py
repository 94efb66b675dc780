"""Write a run's report again from what it left: `python -m mclr_fast.report OUTDIR`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mclr_fast.reports.run_data import read_summary
from mclr_fast.reports.run_page import write_report
from mclr_fast.reports.table_page import write_table_report
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime.errors import RunError

EXAMPLE = """example:
  python -m mclr_fast.report runs/mnist16
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, write the report and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m mclr_fast.report",
        description="Write report.html and figures/*.png from a run's summary.json, log.jsonl and "
        "grid.npz. The page is one file that opens offline.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="the --outdir of a run")
    outdir = parser.parse_args(argv).outdir
    try:
        is_table = isinstance(read_summary(outdir), TableSummary)
        page = (write_table_report if is_table else write_report)(outdir)
    except (FileNotFoundError, ValueError, RunError) as error:
        parser.exit(2, f"error: {error}\n")
    print(page)


if __name__ == "__main__":
    main()
