"""Whether the tests see faults: each of tests/mutations is put into a copy of the tree, its tests are run.

    python tests/mutants.py                 all of them
    python tests/mutants.py data csrc       those of some rooms
    python tests/mutants.py --only flips    those whose name or file holds it

A line a fault, `caught room: fault` or `SURVIVED room: fault`, last `N of M caught`. Exit 0 when at most one
survives. The tests first have to pass without a fault (--unchecked leaves that out). What would prove nothing
ends the whole with an error: a fault whose text is no longer there, that does not compile, or with which no
test can be collected.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mutations import ROOMS, ROOT, Fault, faults

PYTEST = ["-m", "pytest", "-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
BUILD = ["setup.py", "-q", "build_ext", "--inplace"]
LONGEST = 300  # seconds: a fault may make its tests hang
PASSED, FAILED = 0, 1  # pytest's exit codes; others are of tests that were not run
ALLOWED = 1  # that may survive


def main(rooms: Sequence[str], only: str, jobs: int, unchecked: bool) -> int:
    """Try the faults of these rooms: an exit code."""
    chosen = {room: [f for f in faults(room) if only in f.name or only in f.path] for room in rooms}
    num_caught, start = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Tree] = SimpleQueue()
        for number in range(jobs):
            trees.put(Tree(Path(folder, str(number))))
        rooms_checked = {} if unchecked else chosen
        passes = [pool.submit(in_a_tree, trees, Tree.passes, found) for found in rooms_checked.values()]
        sees = {fault: pool.submit(in_a_tree, trees, Tree.sees, fault) for fault in chain(*chosen.values())}
        try:
            for check in passes:
                check.result()
            for room, found in chosen.items():
                for fault in found:
                    caught = sees[fault].result()
                    num_caught += caught
                    print(f"{'caught' if caught else 'SURVIVED'} {room}: {fault.name}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    print(f"in {(time.monotonic() - start) / 60:.1f} minutes")
    print(f"{num_caught} of {len(sees)} caught")
    return 0 if len(sees) - num_caught <= ALLOWED else 1


def in_a_tree(trees: SimpleQueue[Tree], method: Callable[[Tree, Any], Any], argument: Any) -> Any:
    """method(tree, argument) of a tree that is free."""
    tree = trees.get()
    try:
        return method(tree, argument)
    finally:
        trees.put(tree)


class Tree:
    """A copy of the tree's files, with what was built of csrc. said: by what was run last."""

    def __init__(self, folder: Path):
        self.folder, self.said = folder, ""
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
        built = [path.relative_to(ROOT) for path in (ROOT / "mclr_fast/ops/lib").glob("*")]
        for name in [name for name in names if (ROOT / name).is_file()] + built:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
        self.libraries = {name: (folder / name).read_bytes() for name in built}
        self.run(["-c", "import mclr_fast; print(mclr_fast.__file__)"])
        if not self.said.startswith(str(folder)):
            raise SystemExit(f"the copy in {folder} is not what is imported, but {self.said}")

    def passes(self, found: Sequence[Fault]) -> None:
        """See that the tests of a room's faults pass without them. SystemExit where they do not."""
        tests = list(dict.fromkeys(test for fault in found for test in fault.tests.split()))
        if tests and self.run([*PYTEST, *tests]) != PASSED:
            raise SystemExit(f"{self.said}\n{found[0].room}: its tests do not pass without a fault")

    def sees(self, fault: Fault) -> bool:
        """Whether the fault's tests fail with it. SystemExit where they could not be run."""
        whole = (self.folder / fault.path).read_text()
        native = fault.room == "csrc"
        try:
            self._write(fault.path, fault.applied(whole))
            if native:
                self._build(fault)
            else:
                compile(fault.applied(whole), fault.path, "exec")
            code = self.run([*PYTEST, *fault.tests.split()])
        finally:
            self._write(fault.path, whole)
            for name, content in self.libraries.items() if native else ():
                (self.folder / name).write_bytes(content)
        if code not in (PASSED, FAILED):
            raise SystemExit(f"{self.said}\n{fault.room}: {fault.name}: its tests were not run")
        return code == FAILED

    def run(self, arguments: list[str]) -> int:
        """Python with these, in the copy: its exit code; FAILED when it does not end."""
        mine = {"PYTHONPATH": str(self.folder), "MCLR_FAST_CUDA": "0", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | mine,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self.said = process.communicate(timeout=LONGEST)[0]
            return process.returncode
        except subprocess.TimeoutExpired:
            self.said = f"no end after {LONGEST} s"
            return FAILED
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _write(self, path: str, text: str) -> None:
        """Also where text of the same length was written in the same second, which Python would not see."""
        (self.folder / path).write_text(text)
        Path(importlib.util.cache_from_source(self.folder / path)).unlink(missing_ok=True)

    def _build(self, fault: Fault) -> None:
        """Of csrc, which setup.py says nothing about when it fails, but in build.json."""
        report = self.folder / "mclr_fast/ops/lib/build.json"
        if self.run(BUILD) or (said := json.loads(report.read_text())["cpu"]):
            raise SystemExit(f"{self.said or said}\n{fault.room}: {fault.name}: does not compile")


def options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"all unless said: {', '.join(ROOMS)}")
    parser.add_argument("--only", default="", help="part of a fault's name or file")
    parser.add_argument("--unchecked", action="store_true", help="tests are known to pass without a fault")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are at work at once")
    said = parser.parse_args()
    if unknown := set(said.rooms) - set(ROOMS):
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    return said


if __name__ == "__main__":
    said = options()
    sys.exit(main(said.rooms or ROOMS, said.only, said.jobs, said.unchecked))
