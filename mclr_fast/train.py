"""Train: `torchrun -m mclr_fast.train` fine-tunes the embedded base; --help shows every option."""

from __future__ import annotations

import argparse
import sys

import tyro

from mclr_fast.config import RunConfig
from mclr_fast.recipes import DEFAULT, get_recipe, recipe_lines
from mclr_fast.runtime.command_line import parsed
from mclr_fast.runtime.options import given
from mclr_fast.runtime.talk import safe_streams

DESCRIPTION = """Fine-tune a class-conditional generator with MCLR, or train a base.

Run the same command again to resume a run that stopped.

Examples:
  torchrun -m mclr_fast.train
  torchrun -m mclr_fast.train --recipe mnist16 --lr 2e-4 --outdir runs/faster
  torchrun --nproc-per-node 8 -m mclr_fast.train --recipe edm2-img64-s --data img64.zip --init base/

Recipes (--recipe NAME sets the defaults shown below):
"""


def parse(arguments: list[str]) -> RunConfig:
    """The recipe's run with the command line's changes. ValueError for an unknown recipe."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=DEFAULT)
    chosen, _ = first.parse_known_args(arguments)
    return parsed(
        tyro.conf.OmitArgPrefixes[RunConfig],
        arguments,
        "mclr_fast.train",
        DESCRIPTION + "\n".join(f"  {line}" for line in recipe_lines()),
        default=get_recipe(chosen.recipe),
    )


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Parse, build, run. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    from mclr_fast.experiments.checks import check_named, check_used
    from mclr_fast.experiments.dry_run import dry_run
    from mclr_fast.experiments.proof import prove
    from mclr_fast.experiments.run import Run
    from mclr_fast.experiments.tables.table import make_table
    from mclr_fast.runtime.main import fail, run_door

    try:
        config = parse(given(arguments))
    except ValueError as error:
        return fail(error)

    def work(ranks, stop) -> None:
        check_used(config, get_recipe(config.recipe))
        if config.dry_run:
            if ranks.is_main:
                print(dry_run(config))
            check_named(config)  # last: what is planned may be read before its files are there
        elif config.table:
            make_table(config, ranks, stop)
        elif config.proof_seeds:
            prove(config, ranks, stop)
        else:
            Run(config, ranks, stop).execute()

    return run_door(config.device, work)


if __name__ == "__main__":
    sys.exit(main())
