"""Put a saved model on the Hugging Face hub: `python -m mclr_fast.share DIR --to hf:USER/NAME`."""

from __future__ import annotations

import sys

from mclr_fast.config import ShareConfig
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Upload a model, its config.json and its card. Nothing else leaves this machine: no states,
no data.

The token is HF_TOKEN, or that of `hf auth login`. Needs: pip install "mclr_fast[hub]".

Examples:
  python -m mclr_fast.share runs/mnist16 --to hf:USER/NAME --dry-run
  python -m mclr_fast.share runs/mnist16 --to hf:USER/NAME --with-report
Then, for anybody, without that extra:
  python -m mclr_fast.sample hf:USER/NAME --seeds 0-15 --outdir samples
  python -m mclr_fast.train --init hf:USER/NAME
"""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Check, upload, say where. Exit code 0; 1 after one line on stderr."""
    config = parsed(ShareConfig, given(arguments), "mclr_fast.share", DESCRIPTION)
    from mclr_fast.experiments.one_model.share_model import share
    from mclr_fast.runtime.process.main import run_door

    def work(ranks, stop) -> None:
        if ranks.is_main:
            for line in share(config):
                print(line)

    return run_door("cpu", work)


if __name__ == "__main__":
    sys.exit(main())
