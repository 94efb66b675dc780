"""Peak memory of a training step, as a program: a process's peak is its own only if nothing ran before.

Usage: memory_probe.py ROW NUM_NEGATIVES MICRO_BATCH [--quick]; prints JSON, in bytes.
"""

import json
import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from steps import SETTINGS, TrainerStep, build_nets

from mclr_fast.runtime.device.host_memory import keep_freed_memory

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) << 10


def main(row: str, num_negatives: str, micro_batch: str, *flags: str) -> None:
    setting = next(setting for setting in SETTINGS if setting.row == row)
    if "--quick" in flags:
        setting = setting.shrunk()
    setting = replace(setting, num_negatives=int(num_negatives))
    keep_freed_memory()  # as the doors do
    net, plain = build_nets(setting)
    del plain
    with tempfile.TemporaryDirectory() as folder:
        step = TrainerStep(setting, net, Path(folder), int(micro_batch))
        # What is there before any step: the interpreter, the libraries, parameters, moments, averages.
        if CLEAR.exists():
            CLEAR.write_text("5")  # the peak so far is forgotten
            before = status("VmRSS")
        else:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        for _ in range(3):
            step()
    peak = status("VmHWM") if CLEAR.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"before": before, "peak": peak, "step": peak - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
