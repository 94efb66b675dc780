"""Train: `torchrun -m mclr_fast.train` fine-tunes the embedded base; --help shows every option."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import tyro

from mclr_fast.config import RunConfig
from mclr_fast.recipes import DEFAULT, FOLLOWED, Asked, get_recipe, recipe_lines
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Fine-tune a class-conditional generator with MCLR, or train a base.

Run the same command again to resume a run that stopped.

Examples:
  torchrun -m mclr_fast.train
  torchrun -m mclr_fast.train --recipe mnist16 --lr 2e-4 --outdir runs/faster
  torchrun --nproc-per-node 8 -m mclr_fast.train --recipe edm2-img64-s --data img64.zip --init base/

Recipes (--recipe NAME sets the defaults shown below):
"""


def parse(arguments: list[str]) -> RunConfig:
    """The recipe's run with the command line's changes. ValueError or OSError for what cannot be one."""
    return parse_both(arguments)[0]


def parse_both(arguments: list[str]) -> tuple[RunConfig, RunConfig]:
    """`parse`'s run, and the recipe's without the command line's changes."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=DEFAULT)
    for name in FOLLOWED:
        first.add_argument(f"--{name}")
    chosen, _ = first.parse_known_args(arguments)
    found = {name: getattr(chosen, name) for name in FOLLOWED if getattr(chosen, name) is not None}
    recipe = get_recipe(chosen.recipe, Asked(**found))
    config = parsed(
        tyro.conf.OmitArgPrefixes[RunConfig],
        arguments,
        "mclr_fast.train",
        DESCRIPTION + "\n".join(f"  {line}" for line in recipe_lines()),
        default=recipe,
    )
    from mclr_fast.experiments.new_network import with_network_options

    return with_network_options(replace(config, recipe=recipe.recipe), recipe), recipe


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Parse, build, run. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    try:
        config, recipe = parse_both(given(arguments))
    except (ValueError, OSError, RunError) as error:
        from mclr_fast.runtime.process.main import fail

        return fail(error)
    from mclr_fast.experiments.checks import check_named, check_used
    from mclr_fast.experiments.estimates.dry_run import dry_run
    from mclr_fast.experiments.proof import prove
    from mclr_fast.experiments.run import Run
    from mclr_fast.experiments.tables.table import make_table
    from mclr_fast.runtime.process.main import run_door

    def work(ranks, stop) -> None:
        check_used(config, recipe)
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
