"""When --stop-factor stops a run: MCLR at four learning rates, from a weak base and from the shipped one.

Run: pip install -e ".[demo]" && python examples/stopping_trial.py

Trains the weak base, fine-tunes both, prints the table of docs/stopping.md and writes its figure and
curves to runs/stopping: eight minutes of one core. The same command goes on where it was stopped.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mclr_fast.config import RunConfig
from mclr_fast.experiments.run import Run
from mclr_fast.recipes import get_recipe
from mclr_fast.recipes.mnist16 import NET
from mclr_fast.reports.figures import style
from mclr_fast.reports.summary import Summary
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.training.stopping import EnergyGuard

WIDE = {**NET, "model_channels": 32, "channels_per_head": 32, "channel_mult": [1, 2]}
RATES = {1e-4: style.CONTROL, 2e-4: style.GUIDED, 5e-4: style.TRAINED, 1e-3: style.BASE}
WATCHED = {"energy gap": 1, "energy of the images": 0}
WEAK, SHIPPED = "weak base, 673,291 parameters", "shipped base, 72,360 parameters"


def execute(config: RunConfig) -> Summary:
    """The run's summary."""
    return Run(config, Ranks("cpu"), StopRequest()).execute()


def train_base(folder: Path, steps: int) -> str:
    """Train a wide net with the denoising loss, in steps of 64 -> its folder."""
    recipe = get_recipe("mnist16-base")
    train = replace(recipe.train, duration=64 * steps, precision="fp32")
    execute(replace(recipe, outdir=folder, net=WIDE, train=train, eval=replace(recipe.eval, eval_every=0)))
    return str(folder / "checkpoints" / "final-denoising")


def fine_tune(init: str, folder: Path, lr: float, steps: int, factor: float) -> dict:
    """The recipe mnist16 at another base and rate -> why and when it stopped, and its curves."""
    recipe = get_recipe("mnist16")
    options = {"lr": lr, "duration": 32 * steps, "log_every": 32, "precision": "fp32", "stop_factor": factor}
    judge = replace(recipe.eval, eval_every=0, control="none", cfg_scales=())
    train = replace(recipe.train, **options)
    stopped = execute(replace(recipe, outdir=folder, init=init, train=train, eval=judge)).stopped
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    curves = {key: [round(line[key], 3) for line in log] for key in ("images_seen", "positive", "negative")}
    return {"lr": lr, "stopped": stopped and vars(stopped), "steps": steps, **curves}


def watched(run: dict) -> np.ndarray:
    """What the guard saw at each step with a full window, over its start: [steps, energy and gap]."""
    guard, ratios = EnergyGuard(math.inf), []
    for energies in zip(run["positive"], run["negative"], strict=True):
        guard.observe(*energies)
        if guard.start:
            ratios.append(np.mean(guard.recent, axis=0) / guard.start)
    return np.array(ratios)


def markdown(trial: dict[str, list[dict]]) -> str:
    """The table: one line a run."""
    lines = ["| base | learning rate | stopped after | why | energy | gap |", "|---|---|---|---|---|---|"]
    for name, runs in trial.items():
        for run in runs:
            stop, (energy, gap) = run["stopped"], watched(run)[-1]
            after = f"{stop['images_seen']:,} images" if stop else f"not in {run['steps']} steps"
            why = stop["why"].split(",")[0] if stop else "-"
            lines.append(f"| {name} | {run['lr']:g} | {after} | {why} | {energy:.2f} | {gap:.2f} |")
    return "\n".join(lines) + "\n"


def draw(trial: dict[str, list[dict]], factor: float) -> bytes:
    """What the guard watches over its start, against images seen, as PNG; a cross where a run stopped."""
    with matplotlib.rc_context(style.STYLE):
        fig = Figure(figsize=(9.6, 6.4), layout="constrained")
        grid = fig.subplots(2, len(trial), sharex=True, sharey=True)
        for column, (name, runs) in enumerate(trial.items()):
            for ax, (what, index) in zip(grid[:, column], WATCHED.items(), strict=True):
                ax.set_title(f"{what.capitalize()} over its start\n{name}")
                for run in runs:
                    values, color = watched(run)[:, index], RATES[run["lr"]]
                    seen = run["images_seen"][-len(values) :]
                    ax.plot(seen, values, color=color, label=f"learning rate {run['lr']:g}")
                    if run["stopped"] and what in run["stopped"]["why"]:
                        ax.plot(seen[-1], values[-1], "X", color=color, ms=9)
                if factor:
                    ax.axhline(factor, color=style.MUTED, ls="-.", lw=1, label=f"--stop-factor {factor:g}")
            ax.set_xlabel("Images seen")
        ax.xaxis.set_major_formatter(style.count_formatter())
        fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        return style.picture(fig, "stopping", "").png


def main(outdir: Path, stop_factor: float, base_steps=1200, steps=100, rates=tuple(RATES)) -> None:
    """The whole trial: steps of 64 for the base, of 32 for MCLR."""
    bases = {WEAK: train_base(outdir / "base", base_steps), SHIPPED: "mnist16-base"}
    trial = {}
    for name, base in bases.items():
        folders = {lr: outdir / f"{name.split()[0]}-{lr:g}" for lr in rates}
        trial[name] = [fine_tune(base, folders[lr], lr, steps, stop_factor) for lr in rates]
    write_json(outdir / "stopping.json", trial)
    (outdir / "stopping.png").write_bytes(draw(trial, stop_factor))
    print(markdown(trial))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("runs/stopping"), help="default runs/stopping")
    parser.add_argument("--stop-factor", type=float, default=2.5, help="0 = never stop (default 2.5)")
    main(**vars(parser.parse_args()))
