"""The strength dial beside stopping earlier, guidance of the base, and the base as a guide.

Run: pip install -e ".[demo]" && python examples/dial_trial.py

Fine-tunes the shipped base from three training seeds, judges every setting on samples that chose nothing,
prints the tables of docs/dial.md and writes its figure and rows to runs/dial: 13 minutes of one core.
The same command goes on where it was stopped.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from dial_report import WAYS, curves_of, draw, tables
from torch import Tensor, nn

from mclr_fast.config import SampleConfig
from mclr_fast.data import open_dataset
from mclr_fast.evaluation import (
    bootstrap_frechet_difference,
    feature_statistics,
    frechet_distance,
    inception_score,
    precision_recall,
)
from mclr_fast.evaluation.extractors.digits import DigitClassifier
from mclr_fast.experiments.run import Run
from mclr_fast.models import Model, interpolate, load, read_config
from mclr_fast.recipes import get_recipe
from mclr_fast.recipes.mnist16 import SAMPLER
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors
from mclr_fast.sampling.generate import generate

BASE = "mnist16-base"
CHOOSING, JUDGING = 0, 2_000_000  # first sampling seed of those that choose, and of those that judge
MARKS = range(320, 2561, 320)  # images after which the average is judged
STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
DOWN = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)  # of the over-trained model
SCALES = (1.0, 1.05, 1.1, 1.175, 1.25, 1.35, 1.5, 2.0, 3.0)  # of CFG: the recipe's, and between them


class Made(NamedTuple):
    """How samples are made: by the average after so many images (0: the base), at a strength, guided.

    The base is guided by itself without a label, any other network by the base.
    """

    images: int
    strength: float = 1.0
    guidance: float = 1.0

    @property
    def same(self) -> "Made":
        """The plainest of those that make the same samples."""
        plain = Made(0) if 0 in (self.images, self.strength) and self.guidance == 1 else self
        return Made(0) if plain.guidance == 0 else plain


class Seen(NamedTuple):
    """What the digit classifier sees in samples: features [n,16], class probabilities [n,10]."""

    features: Tensor
    probs: Tensor


Plan = dict[str, dict[float, Made]]
"""Way -> setting -> how its samples are made, in the order of the curve."""


def plan_of(marks: Iterable[int], best: int) -> Plan:
    """All that is judged of a training whose best average is that after `best` images."""
    made = {
        "stopping": {images: Made(images) for images in (0, *marks)},
        "dial": {strength: Made(best, strength=strength) for strength in STRENGTHS},
        "guide": {guidance: Made(best, guidance=guidance) for guidance in STRENGTHS},
        "over": {strength: Made(2 * best, strength=strength) for strength in DOWN},
        "cfg": {guidance: Made(0, guidance=guidance) for guidance in SCALES},
    }
    return {way: {setting: m.same for setting, m in settings.items()} for way, settings in made.items()}


@dataclass
class Lab:
    """Trains, samples and scores, all of it once: what was made lies in outdir."""

    outdir: Path
    num_samples: int

    def __post_init__(self):
        self.ranks, self.stop = Ranks("cpu"), StopRequest()
        self.model = Model.of(read_config(BASE))
        self.data = open_dataset("mnist16", "train")
        self.extract = DigitClassifier.pretrained()
        self.labels = torch.arange(self.num_samples) % self.data.num_classes

    def trained(self, seed: int, images: int) -> nn.Module:
        """The recipe's average after so many images: a run's first steps do not depend on its length."""
        folder = self.outdir / f"seed-{seed}" / str(images)
        final = folder / "checkpoints" / "final-mclr"
        if not (final / "model.safetensors").exists():
            recipe = get_recipe("mnist16")
            train = replace(recipe.train, duration=images, precision="fp32")
            unjudged = replace(recipe.eval, eval_every=0, control="none", cfg_scales=())
            run = replace(recipe, outdir=folder, seed=seed, train=train, eval=unjudged)
            summary = Run(run, self.ranks, self.stop).execute()
            if summary.stopped:
                raise SystemExit(f"seed {seed} stopped before {images} images: {summary.stopped.why}")
        return load(final)

    def seen(self, seed: int, made: Made, first: int) -> Seen:
        """What is seen in the samples of the sampling seeds from `first` on."""
        whose = "base" if made.images == 0 else f"seed-{seed}"
        name = f"{whose}-{made.images}-{made.strength:g}-{made.guidance:g}-from-{first}.safetensors"
        path = self.outdir / "seen" / name
        if not path.exists():
            save_tensors(path, {"seen": self._sample(seed, made, first)._asdict()})
        return Seen(**load_tensors(path)[0]["seen"])

    def _sample(self, seed: int, made: Made, first: int) -> Seen:
        base, guide = load(BASE), None
        net = self.trained(seed, made.images) if made.images else base
        if made.strength != 1:
            net = interpolate(base, net, made.strength)
        if made.images and made.guidance != 1:
            guide = base
        options = SampleConfig(model=BASE, **SAMPLER)
        sampler = self.model.sampler(net, options, guidance=made.guidance, guide=guide)
        seeds = range(first, first + self.num_samples)
        places = {"batch_size": options.sample_batch, "ranks": self.ranks, "stop": self.stop}
        batches = generate(sampler, seeds, self.labels, **places)
        decode = self.model.codec(self.data).decode
        with torch.no_grad():
            features, logits = zip(*(self.extract(decode(batch.x)) for batch in batches), strict=True)
        return Seen(torch.cat(features), torch.cat(logits).softmax(dim=1))

    @cached_property
    def real(self) -> Tensor:
        """Features of the training digits."""
        images = torch.from_numpy(self.data.images(np.arange(len(self.data))))
        with torch.no_grad():
            return self.extract(images)[0]

    @cached_property
    def reference(self) -> tuple[Tensor, Tensor]:
        """Their mean and covariance."""
        return feature_statistics(self.real)

    def is_fd(self, seen: Seen) -> tuple[float, float]:
        """The Inception Score over all samples at once, and FD against the training digits."""
        fd = frechet_distance(*feature_statistics(seen.features), *self.reference)
        return inception_score(seen.probs, splits=1)[0], fd

    def choose(self, seed: int, settings: dict[float, Made]) -> float:
        """The setting of lowest FD on the sampling seeds that choose."""
        return min(settings, key=lambda setting: self.is_fd(self.seen(seed, settings[setting], CHOOSING))[1])

    def row(self, way: str, setting: float, seed: int, made: Made) -> dict[str, Any]:
        """What one setting of one way scores on the samples that chose nothing."""
        seen = self.seen(seed, made, JUDGING)
        score, fd = self.is_fd(seen)
        precision, recall = precision_recall(self.real, seen.features, k=3)
        calls = (2 * SAMPLER["num_steps"] - 1) * (1 if made.guidance == 1 else 2)
        said = {"way": way, "setting": setting, "seed": seed, "calls": calls}
        return said | {"fd": fd, "is": score, "precision": precision, "recall": recall}


Curve = Sequence[tuple[float, float]]
"""Points (score, value), in order of the setting."""


def at_level(curve: Curve, level: float) -> float:
    """The value where a curve first passes a score, on a straight line between two points; nan if nowhere."""
    for (low, one), (high, other) in pairwise(curve):
        if low <= level <= high and low < high:
            return one + (other - one) * (level - low) / (high - low)
    return math.nan


def less_stopping(curves: dict[str, Sequence[Curve]]) -> list[list[float]]:
    """Every way's values less stopping's, at the score that stopping has at each mark: [ways, marks].

    curves: of a way, one for each training; means over these. nan where one does not reach the score.
    """
    marks = list(zip(*curves["stopping"], strict=True))[1:]  # the first is the base

    def less(own: Sequence[Curve], mark: Sequence[tuple[float, float]]) -> float:
        pairs = zip(own, mark, strict=True)
        return float(np.mean([at_level(curve, score) - value for curve, (score, value) in pairs]))

    return [[less(own, mark) for mark in marks] for own in curves.values()]


def resampled(lab: Lab, plans: dict[int, Plan], resamples: int) -> np.ndarray:
    """`less_stopping` of IS and FD, were the sampling seeds others: [resamples, ways, marks].

    One draw of sampling seeds, with repeats, serves all ways and trainings, as these share them.
    Source    Efron and Tibshirani (1993), chapter 13.
    """
    judged = {(seed, made) for seed, plan in plans.items() for way in plan.values() for made in way.values()}
    seen = {key: lab.seen(*key, JUDGING) for key in judged}
    rng, found = np.random.default_rng(0), []
    for _ in range(resamples):
        drawn = rng.integers(lab.num_samples, size=lab.num_samples)
        scores = {key: lab.is_fd(Seen(*(part[drawn] for part in parts))) for key, parts in seen.items()}
        curves = {
            way: [[scores[seed, made] for made in plan[way].values()] for seed, plan in plans.items()]
            for way in WAYS
        }
        found.append(less_stopping(curves))
    return np.array(found)


def compared(rows: list[dict], x: str, y: str) -> np.ndarray:
    """`less_stopping` of metric y at equal x, of the rows: [ways, marks]."""
    curves = {way: [[(row[x], row[y]) for row in curve] for curve in curves_of(rows, way)] for way in WAYS}
    return np.array(less_stopping(curves))


def turned_down(lab: Lab, seed: int, plan: Plan, best: int) -> dict[str, Any]:
    """The over-trained model at the strength that the choosing seeds find best, against two others' FD."""
    strength = lab.choose(seed, plan["over"])
    down, kept, over = (
        lab.seen(seed, made, JUDGING) for made in (plan["over"][strength], Made(best), Made(2 * best))
    )
    minus = [
        bootstrap_frechet_difference(down.features, other.features, *lab.reference) for other in (kept, over)
    ]
    found = {"fd": [lab.is_fd(seen)[1] for seen in (down, kept, over)], "minus_best": minus[0]}
    return {"seed": seed, "best": best, "strength": strength, **found, "minus_over_trained": minus[1]}


def carry_out(lab: Lab, seeds: Sequence[int], marks: Sequence[int], resamples: int) -> dict[str, Any]:
    """The whole trial -> what docs/results/dial.json holds."""
    best = {seed: int(lab.choose(seed, {images: Made(images) for images in marks})) for seed in seeds}
    plans = {seed: plan_of(marks, best[seed]) for seed in seeds}
    rows = [
        lab.row(way, setting, seed, made)
        for seed, plan in plans.items()
        for way, settings in plan.items()
        for setting, made in settings.items()
    ]
    ends = np.percentile(resampled(lab, plans, resamples), [2.5, 97.5], axis=0)
    return {
        "samples": lab.num_samples,
        "first_seed": JUDGING,
        "over_trained": [turned_down(lab, seed, plan, best[seed]) for seed, plan in plans.items()],
        "fd_at_equal_is": by_way([compared(rows, "is", "fd"), *ends]),
        "recall_at_equal_precision": by_way([compared(rows, "precision", "recall")]),
        "rows": rows,
    }


def by_way(numbers: Sequence[np.ndarray]) -> dict[str, list[list[float] | None]]:
    """Way -> its numbers at each mark, as JSON has them: None where one of them is none."""
    of_way = zip(WAYS, np.stack(numbers, axis=-1), strict=True)
    return {way: [None if np.isnan(n).any() else n.tolist() for n in marks] for way, marks in of_way}


def main(outdir: Path, num_samples=2000, seeds=(0, 1, 2), marks=MARKS, resamples=1000) -> None:
    """The whole trial, its tables and its figure."""
    trial = carry_out(Lab(outdir, num_samples), seeds, marks, resamples)
    write_json(outdir / "dial.json", trial)
    (outdir / "dial.png").write_bytes(draw(trial))
    print("\n".join(tables(trial)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("runs/dial"), help="default runs/dial")
    main(**vars(parser.parse_args()))
