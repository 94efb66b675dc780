"""FD over the images that a base has seen, of the averages that its run kept: has it levelled off?

Run: python examples/snapshot_curve.py RUN --protocol classifier --data fashion32.zip

Options after RUN, but for --std, --every and --after, are those of `python -m mclr_fast.evaluate`, which
judges each snapshot. Rows, curve.json and curve.png go to RUN/curve; what is there is not made again, so the
same command goes on with a run that has been trained further. --after EARLIER: the run that RUN went on from
(its --init); its snapshots come first, and RUN's images are counted on from its last.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from mclr_fast.config import EvaluateConfig
from mclr_fast.experiments.one_model.evaluate_model import evaluate
from mclr_fast.reports.figures import style
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.process.main import run_door
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.training.snapshots import Snapshot, find_snapshots

LAST, LEAST_FALL = 0.25, 0.10  # levelled off: over the last quarter FD falls by less than a tenth
LEAST_POINTS = 5


def fall(seen: Sequence[int], fds: Sequence[float]) -> float:
    """By which share FD falls over the last quarter of the images; it is interpolated where that begins."""
    start = np.interp((1 - LAST) * seen[-1], seen, fds)
    return float(1 - fds[-1] / start)


def verdict(seen: Sequence[int], fds: Sequence[float]) -> str:
    """In words."""
    if len(seen) < LEAST_POINTS:
        return f"too few snapshots ({len(seen)}) to see whether FD has levelled off: {LEAST_POINTS} at least"
    share = fall(seen, fds)
    over = f"over the last quarter, {(1 - LAST) * seen[-1]:,.0f} to {seen[-1]:,} images"
    moved = f"FD {'falls' if share >= 0 else 'rises'} by {abs(share):.1%} {over}"
    return f"{moved}: {'levelled off' if share < LEAST_FALL else 'still falling'}"


def chosen(run: Path, std: float, every: int) -> list[Snapshot]:
    """Every so many snapshots of this width, the last one among them. RunError where there is none."""
    found = find_snapshots(run)
    of_width = [snapshot for snapshot in found if snapshot.std == std]
    if not of_width:
        raise RunError(f"--std {std:g}: {run} kept averages of {sorted({s.std for s in found})}.")
    return of_width[::-1][::every][::-1]


def row_of(snapshot: Snapshot, folder: Path, options: list[str], ranks: Ranks, stop: StopRequest) -> dict:
    """What `evaluate` says of a snapshot, kept in the folder; what was kept is of the same options."""
    path = folder / f"{snapshot.path.name}.json"
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["options"] != options:
            raise RunError(f"{path} was judged with {kept['options']}, not {options}: remove {folder}.")
        return kept["row"]
    config = tyro.cli(EvaluateConfig, args=[str(snapshot.path), *options])
    row = evaluate(config, ranks, stop)
    write_json(path, {"options": options, "row": row})
    return row


def draw(seen: Sequence[int], fds: Sequence[float], title: str) -> bytes:
    """The curve as PNG."""
    with style.styled():
        fig, ax = style.axes((6.4, 4.0), title, "Images seen", "FD (lower is better)")
        ax.plot(seen, fds, "o-", color=style.TRAINED, label="the average of the base")
        ax.axvline((1 - LAST) * seen[-1], color=style.MUTED, ls="-.", lw=1, label="the last quarter begins")
        style.log_axis(ax)
        ax.xaxis.set_major_formatter(style.count_formatter())
        fig.legend(loc="outside lower center", ncols=2)
        return style.picture(fig, "curve", "").png


def main(arguments: list[str] | None = None) -> int:
    """Judge, print, draw. Exit code 0; 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run that kept snapshots")
    parser.add_argument("--std", type=float, default=0.1, help="width of the averages (default 0.1)")
    parser.add_argument("--every", type=int, default=1, help="every so many of them, from the last on back")
    parser.add_argument("--after", metavar="EARLIER", type=Path, help="folder of the run that RUN began with")
    config, options = parser.parse_known_args(arguments)

    def work(ranks: Ranks, stop: StopRequest) -> None:
        folder, points = config.run / "curve", []
        for run in filter(None, (config.after, config.run)):
            before = points[-1][0] if points else 0
            for snapshot in chosen(run, config.std, max(config.every, 1)):
                row: dict[str, Any] = row_of(snapshot, run / "curve", options, ranks, stop)
                fd = row["metrics"][row["chosen_by"]]["fd"]
                points.append((before + snapshot.images_seen, fd))
                print(f"{points[-1][0]:>12,} images  FD {fd:.4f}", flush=True)
        seen, fds = zip(*points, strict=True)
        said = verdict(seen, fds)
        print(f"{said}.")
        write_json(
            folder / "curve.json", {"images_seen": seen, "fd": fds, "std": config.std, "verdict": said}
        )
        (folder / "curve.png").write_bytes(draw(seen, fds, f"{config.run.name}: FD over training"))

    return run_door("auto", work)


if __name__ == "__main__":
    raise SystemExit(main())
