"""What several ranks of one node do; multi_gpu.sh runs it, and says what for.

A part after another, each written to the JSON file when it is done; one that fails leaves its error there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from png_zip import write_png_zip

JOB = Path(__file__).with_name("rank_job.py")
MOST_SECONDS = 900  # of a job: ends a hang
STEPS, SAVE_EVERY, KILLED_AT = 6, 2, 5
TIMED_STEPS = 15
IMAGES_A_RANK = 16
LIMIT = (
    1e-4  # of the energies: what the order of sums leaves of a loss, float32 without TF32, after STEPS steps
)
SHARDINGS = ("replicate", "shard")


class Failed(Exception):
    """A job that ended otherwise than it should: its last words."""


class Node:
    """Starts jobs on this machine's ranks. Attributes: ranks, at most; small: tiny networks on the CPU."""

    def __init__(self, ranks: int, small: bool, folder: Path):
        self.ranks, self.small, self.folder = ranks, small, folder
        self._whole: dict[tuple[int, str], dict] = {}

    def run(self, num_ranks: int, job: str, *options: object, dies: bool = False, **environment: str) -> dict:
        """What a job wrote; nothing of one that should die.

        Errors    Failed when it ends otherwise, or takes too long.
        """
        out = self.folder / "job.json"
        out.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={num_ranks}",
        ]
        command += [str(JOB), job, str(out), *map(str, options), *["--small"] * self.small]
        try:
            done = subprocess.run(
                command, env=os.environ | environment, capture_output=True, text=True, timeout=MOST_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{job} on {num_ranks} ranks: not done in {MOST_SECONDS} s") from None
        if (done.returncode != 0) != dies:
            said = [line for line in done.stderr.splitlines() if "rror" in line] or [
                f"status {done.returncode}"
            ]
            raise Failed(f"{job} on {num_ranks} ranks: {said[0][:300]}")
        return {} if dies else json.loads(out.read_text())

    def train(self, num_ranks: int, sharding: str, name: str, *options: object, **environment) -> dict:
        """STEPS steps with states, reproducible; the same in the same folder goes on."""
        where = self.folder / f"{name}-{sharding}-{num_ranks}"
        given = ("--folder", where, "--sharding", sharding, "--images", 2 * self.ranks, "--steps", STEPS)
        return self.run(num_ranks, "steps", *given, "--save-every", SAVE_EVERY, *options, **environment)

    def whole(self, num_ranks: int, sharding: str) -> dict:
        """`train` with nothing happening to it; done once."""
        place = num_ranks, sharding
        if place not in self._whole:
            self._whole[place] = self.train(num_ranks, sharding, "whole")
        return self._whole[place]


def worst_difference(found: dict, expected: dict) -> float:
    """Between losses, in parts of their energies."""
    pairs = zip(found["losses"], expected["losses"], expected["energies"], strict=True)
    return max(abs(a - b) / energy for a, b, energy in pairs)


def losses(node: Node) -> dict:
    """Each way of placing the network against one rank, the same minibatches."""
    alone = node.whole(1, "replicate")
    rows = {}
    for sharding in SHARDINGS:
        found = node.whole(node.ranks, sharding)
        worst = worst_difference(found, alone)
        rows[sharding] = {"worst": worst, "equal": worst <= LIMIT, "weights": found["weights"]}
    return {"machine": alone["machine"], "ranks": node.ranks, "steps": STEPS, **rows}


def resume(node: Node) -> dict:
    """A rank is killed in step KILLED_AT; the same command again ends like the run without that."""
    rows = {}
    for sharding in SHARDINGS:
        whole = node.whole(node.ranks, sharding)
        fault = f"{node.ranks - 1}:{KILLED_AT}:sigkill"
        node.train(node.ranks, sharding, "killed", dies=True, MCLR_FAST_FAULT=fault)
        found = node.train(node.ranks, sharding, "killed")
        rows[sharding] = {
            "resumed_from_step": found["resumed_from_step"],
            "same_bits": found["weights"] == whole["weights"] and found["losses"] == whole["losses"],
            "worst": worst_difference(found, whole),
        }
    return {"ranks": node.ranks, "killed_at_step": KILLED_AT, **rows}


def scaling(node: Node) -> dict:
    """Images a second with IMAGES_A_RANK on each of 1, 2, 4, ... ranks, in bfloat16."""
    sizes = [count for count in (1, 2, 4, 8) if count < node.ranks] + [node.ranks]
    rows = []
    for sharding in SHARDINGS:
        for num_ranks in sizes if sharding == "replicate" else sizes[1:]:
            where = node.folder / f"timed-{sharding}-{num_ranks}"
            steps = STEPS if node.small else TIMED_STEPS
            given = ("--sharding", sharding, "--images", IMAGES_A_RANK * num_ranks, "--steps", steps)
            found = node.run(num_ranks, "steps", "--folder", where, "--timed", "--precision", "bf16", *given)
            row = {key: found[key] for key in ("ranks", "sharding", "milliseconds", "peak_GiB")}
            row["images_per_second"] = found["images"] / found["milliseconds"] * 1e3
            rows.append(row)
            row["efficiency"] = row["images_per_second"] / num_ranks / rows[0]["images_per_second"]
    return {"images_a_rank": IMAGES_A_RANK, "rows": rows}


def data(node: Node) -> dict:
    """PNG images a second by DALI, on one rank and on all."""
    path = node.folder / "images.zip"
    write_png_zip(path, 256 if node.small else 16384)
    return {"rows": [node.run(count, "images", "--data", path) for count in (1, node.ranks)]}


PARTS: dict[str, Callable[[Node], dict]] = {
    "losses": losses,
    "resume": resume,
    "scaling": scaling,
    "data": data,
}


def main(given: Sequence[str] | None = None) -> int:
    """0 if every part was done and every promise kept."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--small", action="store_true", help="tiny networks on the CPU: to see that it runs")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    args = parser.parse_args(given)
    if not 2 <= args.ranks <= 8:
        parser.error(f"--ranks {args.ranks} is not 2 to 8.")
    results: dict = {"small": args.small}
    with tempfile.TemporaryDirectory() as folder:
        node = Node(args.ranks, args.small, Path(folder))
        for name in args.parts:
            try:
                results[name] = PARTS[name](node)
            except (Failed, OSError) as error:
                results[name] = {"failed": str(error)}
            args.out.write_text(json.dumps(results, indent=1) + "\n")
            print(name, json.dumps(results[name]), flush=True)
    return 0 if kept(results) else 1


def kept(results: dict) -> bool:
    """Whether nothing failed, losses were equal, and resumed runs ended in the same bits."""
    parts = [part for part in results.values() if isinstance(part, dict)]
    promised = [results.get(part, {}).get(s, {}) for part in ("losses", "resume") for s in SHARDINGS]
    broken = any(False in (row.get("equal"), row.get("same_bits")) for row in promised)
    return not broken and not any("failed" in part for part in parts)


if __name__ == "__main__":
    sys.exit(main())
