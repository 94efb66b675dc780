"""What this machine has: `python -m mclr_fast.doctor` prints a checklist."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mclr_fast.recipes import PRESETS, get_recipe
from mclr_fast.runtime.process.talk import safe_streams


@safe_streams()
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the checklist. Exit code 0, whatever is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m mclr_fast.doctor",
        description="Say what this machine has, and which implementation each op uses.",
        epilog="example:\n  python -m mclr_fast.doctor",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="compile every GPU kernel for sm_80, sm_90 and sm_100 (no GPU needed; minutes) and print "
        "registers, spills, shared memory, width of accesses, bytes moved and the time these take on an H100",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="count what training every EDM2 preset needs of a GPU, for several K, on 1, 8 and 64 GPUs, and "
        "the largest micro-batch that fits (no GPU needed; a minute)",
    )
    parser.add_argument("--gpu-memory-gib", type=float, default=0, help="for --memory; 0: this GPU's, or 80")
    options = parser.parse_args(arguments)
    if options.kernels:
        from mclr_fast.ops import audit

        print(audit.table(audit.rows()))
        if reason := audit.count_bytes.missing():
            print(f"\nBytes of Triton's kernels are not counted: {reason}.")
        return 0
    if options.memory:
        from mclr_fast.experiments.estimates.memory_table import preset_lines

        for line in preset_lines(map(get_recipe, PRESETS), options.gpu_memory_gib):
            print(line, flush=True)
        return 0
    from mclr_fast.experiments.checklist import checklist

    for line in checklist():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
