"""What K, N, learning rate, DSM weight and noise level do: FD over images seen, one option turned at a time.

Run: pip install -e ".[demo]" && python examples/choosing.py

Fine-tunes with MCLR from the recipe's settings (--recipe and other options as `python -m mclr_fast.train`
takes them), with --seeds, prints the table of docs/choosing.md and writes its figure and rows to --outdir.
The same command goes on where it was stopped.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mclr_fast import train
from mclr_fast.config import RunConfig
from mclr_fast.experiments.run import Run
from mclr_fast.reports.figures import style
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.process.main import run_door
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

COLORS = (style.CONTROL, style.GUIDED, style.TRAINED, style.DIAL, style.BASE)


@dataclass(frozen=True)
class Sweep:
    """One option at several values; by_root: the learning rate follows N by its square root."""

    title: str
    part: str  # of the configuration
    option: str
    values: tuple[float, ...]
    by_root: bool = False

    def config(self, run: RunConfig, value: float) -> RunConfig:
        """The run with this value."""
        changed = {self.option: value}
        if self.by_root:
            changed["lr"] = run.train.lr * (value / run.train.batch_size) ** 0.5
        return replace(run, **{self.part: replace(getattr(run, self.part), **changed)})


def sweeps(run: RunConfig) -> list[Sweep]:
    """Around the run's own values."""
    size, lr, mean = run.train.batch_size, run.train.lr, run.objective.P_mean
    batches = tuple(size * factor // 2 for factor in (1, 2, 4, 8))
    return [
        Sweep("K, negatives an image", "objective", "num_negatives", (1, 3, 7, 15)),
        Sweep("Learning rate", "train", "lr", tuple(lr * factor for factor in (0.5, 1, 2, 4))),
        Sweep("N, images a step", "train", "batch_size", batches),
        Sweep("N, learning rate by its root", "train", "batch_size", batches, by_root=True),
        Sweep("Weight of denoising", "objective", "dsm_weight", (0.0, 0.25, 1.0, 4.0)),
        Sweep("Noise, mean of ln(sigma)", "objective", "P_mean", tuple(mean + more for more in range(-2, 3))),
    ]


def judged(config: RunConfig, seed: int, folder: Path, ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    """FD over images seen of a run, the base first; why it stopped."""
    judge = replace(config.eval, control="none", cfg_scales=(), best_cfg_scales=(), dial=(), final_samples=0)
    config = replace(config, eval=judge, seed=seed, outdir=folder / f"{settings(config)}-seed{seed}")
    summary = Run(config, ranks, stop).execute()
    rows = sorted(summary.of("base", "trained"), key=lambda row: row.images_seen or 0)
    return {
        "seed": seed,
        "images_seen": [row.images_seen or 0 for row in rows],
        "fd": [row.fd for row in rows],
        "stopped": summary.stopped and summary.stopped.images_seen,
    }


def settings(config: RunConfig) -> str:
    """Names a run's folder: sweeps share what they turn nothing of."""
    numbers = {
        "k": config.objective.num_negatives,
        "n": config.train.batch_size,
        "lr": config.train.lr,
        "dsm": config.objective.dsm_weight,
        "p": config.objective.P_mean,
    }
    return "-".join(f"{name}{value:g}" for name, value in numbers.items())


def best(run: dict[str, Any]) -> tuple[float, int]:
    """Lowest FD and the images seen there."""
    index = int(np.argmin(run["fd"]))
    return run["fd"][index], run["images_seen"][index]


def last(run: dict[str, Any]) -> float:
    """FD at the end over the lowest: how much is lost by a run that goes on."""
    return run["fd"][-1] / best(run)[0]


def spread(values: Sequence[float], form: str) -> str:
    """The mean, with lowest and highest where there are several."""
    mean = format(np.mean(values), form)
    if len(values) == 1 or min(values) == max(values):
        return mean
    return f"{mean} ({format(min(values), form)} to {format(max(values), form)})"


def markdown(results: list[dict[str, Any]]) -> str:
    """The table: one line a value."""
    lines = [
        "| | lowest FD | after so many images | learning rate x steps there | last FD over it |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        lines.append(f"| **{result['title']}** | | | | |")
        keys = ("values", "lr", "batch_size", "runs")
        for value, lr, size, runs in zip(*(result[key] for key in keys), strict=True):
            fds, seen = zip(*map(best, runs), strict=True)
            stopped = sum(run["stopped"] is not None for run in runs)
            note = f"; {stopped} of {len(runs)} stopped" if stopped else ""
            ends = spread([last(run) for run in runs], ".2f")
            way = spread([lr * images / size for images in seen], ".4f")
            lines.append(
                f"| {value:g} | {spread(fds, '.3f')} | {spread(seen, ',.0f')} | {way} | {ends}{note} |"
            )
    return "\n".join(lines) + "\n"


def draw(results: list[dict[str, Any]]) -> bytes:
    """FD over images seen, a panel a sweep, the mean over seeds and their spread, as PNG."""
    with style.styled():
        from matplotlib.figure import Figure

        fig = Figure(figsize=(11.0, 6.4), layout="constrained")
        panels = list(fig.subplots(2, 3, sharey=True).flat)
        for ax, result in zip(panels, results, strict=True):
            for value, runs, color in zip(result["values"], result["runs"], COLORS, strict=False):
                seen = min((run["images_seen"] for run in runs), key=len)
                fds = np.array([run["fd"][: len(seen)] for run in runs])
                ax.plot(seen, fds.mean(0), "o-", ms=3, color=color, label=f"{value:g}")
                ax.fill_between(seen, fds.min(0), fds.max(0), color=color, alpha=0.2, lw=0)
            ax.set_title(result["title"])
            ax.set_xlabel("Images seen")
            ax.xaxis.set_major_formatter(style.count_formatter())
            style.log_axis(ax)
            ax.legend(ncols=2)
        fig.supylabel("FD (lower is better)")
        return style.picture(fig, "choosing", "").png


def main(arguments: list[str] | None = None) -> int:
    """Run, print, draw. Exit code 0; 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--outdir", type=Path, default=Path("runs/choosing"), help="default runs/choosing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training (default 0)")
    asked, options = parser.parse_known_args(arguments)

    def work(ranks: Ranks, stop: StopRequest) -> None:
        run, results = train.parse(options), []
        for sweep in sweeps(run):
            configs = [sweep.config(run, value) for value in sweep.values]
            runs = [
                [judged(config, seed, asked.outdir, ranks, stop) for seed in asked.seeds]
                for config in configs
            ]
            rates, sizes = zip(
                *((config.train.lr, config.train.batch_size) for config in configs), strict=True
            )
            results.append(
                {"title": sweep.title, "values": sweep.values, "lr": rates, "batch_size": sizes, "runs": runs}
            )
        write_json(asked.outdir / "choosing.json", results)
        (asked.outdir / "choosing.png").write_bytes(draw(results))
        print(markdown(results))

    return run_door("auto", work)


if __name__ == "__main__":
    raise SystemExit(main())
