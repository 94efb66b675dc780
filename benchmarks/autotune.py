"""A compiled step in a process of its own, which is ended when compiling takes too long.

Run: python benchmarks/autotune.py ROW [--mode MODE] [--limit SECONDS] ...   (prints JSON, a line an event)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace

from baselines.algorithm1 import copy_of
from baselines.deduplicated import DeduplicatedStep
from gpu import Device
from interleave import in_turn
from steps import GPU_SETTINGS, Setting, build_nets, image_data

MOST_COMPILE_SECONDS = 240
AROUND = 90  # seconds for everything else that the process does


def setting_of(row: str, device: str, shrunk: bool) -> Setting:
    """The setting of a row; on a CPU only shrunk ones are of use."""
    setting = next(setting for setting in GPU_SETTINGS if setting.row == row)
    setting = setting.shrunk() if shrunk else setting
    return replace(setting, device=device)


def elsewhere(row: str, *options: str, limit: float = MOST_COMPILE_SECONDS) -> dict:
    """{"seconds": of each round, "compile_seconds"}, or {"why": it did not come to that}.

    options: of this program's command line.
    """
    command = [sys.executable, __file__, row, "--limit", str(limit), *options]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            printed, errors = process.communicate(timeout=limit + AROUND)
        except subprocess.TimeoutExpired:
            process.kill()
            return {"why": f"did not finish in {limit + AROUND:g} s, {AROUND} of them for the rest"}
        finally:
            with contextlib.suppress(ProcessLookupError):  # compilers that it started
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == -signal.SIGALRM:
        return {"why": f"did not finish in {limit:g} s"}
    if process.returncode:
        last = (errors.strip() or f"exit status {process.returncode}").splitlines()[-1]
        return {"why": last[:200]}
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("--mode", default="max-autotune")
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shrunk", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=MOST_COMPILE_SECONDS)
    args = parser.parse_args()
    setting = setting_of(args.row, args.device, args.shrunk)
    _, plain = build_nets(setting)
    sizes = (image_data(setting.net), setting.num_images, setting.num_negatives)
    net = copy_of(plain, setting.dtype)
    # The alarm ends the process, wherever it is: compiling may not look at Python's signals for minutes.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, args.limit)
    step = DeduplicatedStep(net, *sizes, backend=args.backend, mode=args.mode or None)
    device = Device(setting.device)
    device.finish()
    signal.setitimer(signal.ITIMER_REAL, 0)
    times = in_turn({"compiled": step}, rounds=args.rounds, calls=3, finish=device.finish)["compiled"]
    print(json.dumps({"seconds": times.seconds, "compile_seconds": step.compile_seconds}))


if __name__ == "__main__":
    main()
