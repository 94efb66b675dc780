"""Peak memory of a step at K=15, cut into micro-batches of K=1's evaluations, against K=1."""

import json
import subprocess
import sys
from pathlib import Path

from steps import SETTINGS

ROW = "step-bf16-k3"  # network, images and dtype
NUM_NEGATIVES = 15
PROBE = Path(__file__).parent / "memory_probe.py"


def probe(num_negatives, micro_batch, *flags):
    command = [sys.executable, str(PROBE), ROW, str(num_negatives), str(micro_batch), *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_memory(benchmark, suite):
    setting = next(setting for setting in SETTINGS if setting.row == ROW)
    flags = ("--quick",) if suite.quick else ()
    micro_batch = 2 * (setting.shrunk() if suite.quick else setting).num_images
    info = benchmark.extra_info
    info.update(row="memory-k15", dtype=str(setting.dtype), micro_batch=micro_batch, machine=suite.machine)
    one = probe(1, 0, *flags)
    whole = probe(NUM_NEGATIVES, 0, *flags)
    cut = benchmark.pedantic(probe, args=(NUM_NEGATIVES, micro_batch, *flags), rounds=1)
    info["bytes"] = {"k1": one, "k15": cut, "k15_in_one_piece": whole}
    # Of a step alone, parameters and optimizer not counted: the stricter of the two ratios.
    info["case"] = f"{cut['step'] / 1e6:.0f} MB, K=1 {one['step'] / 1e6:.0f} MB"
    info["over_k1_with_parameters"] = cut["peak"] / one["peak"]
    info["over_k1_in_one_piece"] = whole["step"] / one["step"]
    suite.record(benchmark, {"over_k1": [cut["step"] / one["step"]]})
