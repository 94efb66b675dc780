"""A report at the end of a run: where it fails, the run does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mclr_fast.runtime.errors import one_line
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks


def report(write: Callable[[Path], Path], outdir: Path, ranks: Ranks) -> None:
    """Rank 0: write the page of what lies in `outdir`, and say where it is, or why there is none."""
    if not ranks.is_main:
        return
    try:
        page = write(outdir)
    except Exception as error:  # a library's, of fonts, pictures or memory: all that it shows is on disk
        say(
            True,
            f"warning: no report ({one_line(error)}). The run itself is whole: python -m mclr_fast.report "
            f"{outdir} writes it.",
        )
    else:
        say(True, f"report: {page}")
