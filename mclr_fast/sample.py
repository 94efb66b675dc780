"""Sample images from a saved model: `python -m mclr_fast.sample MODEL --seeds 0-15`."""

from __future__ import annotations

import sys

from mclr_fast.config import SampleConfig
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Sample images: PNG files, an EDM2 zip or an .npz. Also runs under torchrun; killed, the same
command goes on. Steps, noise levels and classes are the model's own unless said.

Examples:
  python -m mclr_fast.sample mnist16-base --seeds 0-19 --outdir out --grid
  python -m mclr_fast.sample runs/mnist16 --seeds 0-9 --labels 3 --guidance 1.5
  python -m mclr_fast.sample runs/mnist16 --seeds 0-1999 --balance --strength 0.5 --outdir half.zip
  torchrun --nproc-per-node 8 -m mclr_fast.sample edm2-img512-s-2147483-0.085.pkl --seeds 0-49999 \
    --gnet edm2-img512-xs-uncond-2147483-0.085.pkl --guidance 1.9 --vae stabilityai/sd-vae-ft-mse --out s.npz
"""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Load, sample, write. Exit code 0; 1 after one line on stderr; 143 when told to stop."""
    config = parsed(SampleConfig, given(arguments), "mclr_fast.sample", DESCRIPTION)
    from mclr_fast.experiments.one_model.sample_files import sample_files, sheet_path
    from mclr_fast.runtime.process.main import run_door

    def work(ranks, stop) -> None:
        count = sample_files(config, ranks, stop)
        if ranks.is_main:
            sheet = f", contact sheet {sheet_path(config.outdir)}" if config.grid else ""
            print(f"{count} images in {config.outdir}{sheet}")

    return run_door(config.device, work)


if __name__ == "__main__":
    sys.exit(main())
