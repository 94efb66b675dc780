"""Read and write other programs' models: `python -m mclr_fast.convert SRC DST`, or `SRC --to FORMAT DST`."""

from __future__ import annotations

import sys

from mclr_fast.config import ConvertConfig
from mclr_fast.runtime.options import given
from mclr_fast.runtime.process.command_line import parsed
from mclr_fast.runtime.process.talk import safe_streams

DESCRIPTION = """Make a model folder of another program's file, or another program's file of a model.

Examples:
  NVIDIA's EDM2 snapshot (DDO's too, a training state, or VAR's .pth), without running what is in it:
    python -m mclr_fast.convert edm2-img64-s-1073741-0.075.pkl base/
  Your weights in your own copy of a snapshot, for EDM2's generate_images.py:
    python -m mclr_fast.convert runs/x/checkpoints/best --to edm2-pkl --template THEIR.pkl out.pkl
  What EDM2's training loop resumes from, to fine-tune in it (docs/edm2-code.md):
    python -m mclr_fast.convert base/ --to edm2-training-state RUN/training-state-0000000.pt
"""


@safe_streams()
def main(arguments: list[str] | None = None) -> int:
    """Convert and say where. Exit code 0; 1 after one line on stderr."""
    config = parsed(ConvertConfig, given(arguments), "mclr_fast.convert", DESCRIPTION)
    from mclr_fast.models.storage.convert import convert
    from mclr_fast.runtime.process.main import run_door

    def work(ranks, stop) -> None:
        if ranks.is_main:
            convert(config)
            print(config.out)

    return run_door("cpu", work)


if __name__ == "__main__":
    sys.exit(main())
