"""Check the paper's theorems: `python -m mclr_fast.theory` writes numbers and pictures."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Check the paper's theorems on mixtures with known densities.

Writes theory.json, the measured errors, and theory-*.png. Takes under a minute on one core.

Example:
  python -m mclr_fast.theory --outdir theory
"""


@dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """Options of `python -m mclr_fast.theory`."""

    outdir: Path = Path("theory")
    """Folder of theory.json and the PNG files."""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Compute, print, draw. Exit code 0; 1 after one line on stderr where outdir cannot be written."""
    config = parsed(TheoryConfig, given(arguments), "mclr_fast.theory", DESCRIPTION)
    from mclr_fast.runtime.errors import RunError
    from mclr_fast.runtime.process.main import fail

    try:
        config.outdir.mkdir(parents=True, exist_ok=True)
        _check_and_draw(config.outdir)
    except (OSError, RunError) as error:
        return fail(RunError(f"cannot write to --outdir {config.outdir}: {error}; choose another folder."))
    return 0


def _check_and_draw(outdir: Path) -> None:
    from mclr_fast.runtime.files import write_json

    from .figures import save_figures
    from .studies import STUDIES

    numbers, shown = {}, {}
    for name, study in STUDIES.items():
        numbers[name], shown[name] = study()
        print(name, *(f"{key}={_text(value)}" for key, value in numbers[name].items()))
    write_json(outdir / "theory.json", numbers)
    for path in save_figures(shown, outdir):
        print(path)


def _text(value: float | list[float]) -> str:
    return ",".join(f"{v:.3g}" for v in (value if isinstance(value, list) else [value]))


if __name__ == "__main__":
    sys.exit(main())
