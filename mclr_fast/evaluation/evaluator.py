"""Rows of the table: sample, extract features, score; each kept on disk, so a rerun repeats none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mclr_fast.config import EvalConfig
from mclr_fast.models import Model
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.formats import EVALUATION_FORMAT, evaluation_row
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors
from mclr_fast.sampling.generate import Batch, generate
from mclr_fast.sampling.sampler import Sampler

from .collected import Collected
from .grid_samples import GRID_CLASSES, classes_of_grid, each_class, grid_samples
from .judge import Judge
from .rows import Kind, Row

GRID_POOL = 20  # seeds among which the grid's noises are looked for


@dataclass(frozen=True)
class Evaluation:
    """One row, the features it was computed from, and its pictures for the same-noise grid.

    On rank 0 features [n,D], where differences have an interval, and grid uint8 [noises, classes, C, H, W];
    else None.
    """

    row: Row
    features: Tensor | None = None
    grid: Tensor | None = None


@dataclass
class Evaluator:
    """Evaluates networks, each on the run's device, by one judge with one set of sampling seeds.

    Images are seen where they are made, a batch at a time: no rank holds more of them, but for the grid's.
    All ranks call its methods.

    Args:
        judge: of the samples; config: the sampler's options, how many noises the grid has.
        seeds: of the samples; labels int64 [n]: their classes, of those that the model was trained with.
        model: of the networks' kind; decode: its x -> uint8 images [b,C,H,W].
        folder: where evaluations are kept; objective: what the run trains with (older files do not say which
            of their rows is the trained model's).
        guide: gives the network that guides, on the device; None: each guides itself, without a label.
        guided_by: what is said of that network, as JSON.
    """

    judge: Judge
    config: EvalConfig
    seeds: Sequence[int]
    labels: Tensor
    classes: Sequence[int]
    model: Model
    decode: Callable[[Tensor], Tensor]
    folder: Path
    objective: str
    ranks: Ranks
    stop: StopRequest
    guide: Callable[[], nn.Module] | None = None
    guided_by: dict[str, Any] | None = None

    def __post_init__(self):
        self.grid_seeds = list(self.seeds[: self.config.grid_noises])
        self.grid_classes = classes_of_grid(self.classes)

    def choose_grid_seeds(self, base: nn.Module) -> None:
        """Grid noises: the first seed, and of the first 20 those where `base` is least class-specific.

        That is, where the judge's classifier finds the class asked for least often; without one, the first
        seeds. So the grid shows an ordinary noise and one where there is something to mend, and nobody picks.
        """
        classifier = self.judge.kept_features  # its logits are of the classes
        if classifier is None or len(self.classes) > GRID_CLASSES:
            return
        pool = list(self.seeds[:GRID_POOL])
        samples = each_class(pool, self.grid_classes)
        seen = self._see(self._sampler(base, None), *samples, "noises of the grid")[classifier]

        def hardest() -> list[int]:
            probs = seen.logits.softmax(dim=1).unflatten(0, (len(pool), -1))
            own_class = probs[:, range(len(self.grid_classes)), self.grid_classes].mean(dim=1)
            return [pool[i] for i in own_class.argsort(stable=True).tolist() if pool[i] != pool[0]]

        self.grid_seeds = [pool[0], *self.ranks.on_main(hardest)][: self.config.grid_noises]

    def evaluate(
        self, net: nn.Module, name: str, kind: Kind, images_seen: int = 0, **strengths: float | None
    ) -> Evaluation:
        """The evaluation `name` at `images_seen`: read if it was made before, else made and kept."""
        found = self.kept(name, images_seen)
        if found is None:
            found = self.make(net, name, kind, images_seen, **strengths)
            self.keep(found)
        return found

    def make(
        self,
        net: nn.Module,
        name: str,
        kind: Kind,
        images_seen: int = 0,
        *,
        guidance: float | None = None,
        strength: float | None = None,
    ) -> Evaluation:
        """Sample and score; nothing is written. strength: of the dial that `net` is on."""
        started = time.perf_counter()
        sampler = self._sampler(net, guidance)
        seen = self._see(sampler, self.seeds, self.labels, f"{name} samples")
        metrics = self.judge.metrics(seen, self.labels if self.model.facts.num_classes else None)
        grid = self._grid(sampler)
        row = Row(
            name=name,
            kind=kind,
            images_seen=images_seen,
            nfe=sampler.nfe,
            samples=len(self.labels),
            metrics=metrics,
            chosen_by=self.judge.chosen_by,
            guidance=sampler.guidance,
            unguided=sampler.unguided,
            strength=strength,
            seconds=self.ranks.on_main(lambda: time.perf_counter() - started),
            classifier=self.judge.classifier,
        )
        kept = self.judge.kept_features
        return Evaluation(row, seen[kept].features if kept else None, grid)

    def path(self, name: str, images_seen: int) -> Path:
        """Where this evaluation is kept."""
        return self.folder / f"{name}-{images_seen}.safetensors"

    def kept(self, name: str, images_seen: int) -> Evaluation | None:
        """The evaluation that was kept; None if it was not made before."""
        path, read = self.path(name, images_seen), {}

        def row() -> Row | None:
            if not path.exists():
                return None
            groups, meta = load_tensors(path)
            read.update(groups)
            row = Row.from_json(evaluation_row(meta, self.objective, path))
            self._check_classifier(row, path)
            return row

        found = self.ranks.on_main(row)
        if found is None:
            return None
        return Evaluation(found, read.get("seen", {}).get("features"), read.get("grid", {}).get("images"))

    def _check_classifier(self, row: Row, path: Path) -> None:
        """RunError for a row that another trained classifier judged."""
        ours = self.judge.classifier
        if row.classifier != ours:
            theirs, ours = (each[:12] if each else "none" for each in (row.classifier, ours))
            raise RunError(
                f"{path} was judged by another classifier ({theirs}) than this run's now ({ours}): such "
                "rows do not compare. Bring back the run's classifier-*.safetensors, or remove its rows."
            )

    def keep(self, evaluation: Evaluation) -> None:
        """Write it where `kept` finds it."""
        row = evaluation.row

        def write() -> None:
            groups = {"grid": {"images": evaluation.grid}}
            if evaluation.features is not None:
                groups["seen"] = {"features": evaluation.features}
            meta = {"format": EVALUATION_FORMAT, **row.to_json()}
            save_tensors(self.path(row.name, row.images_seen), groups, meta)

        self.ranks.on_main(write)

    def grid(self, net: nn.Module, guidance: float) -> Tensor | None:
        """Some classes from the grid's few noises: on rank 0 uint8 [noises, classes, C, H, W]."""
        return self._grid(self._sampler(net, guidance))

    def verdicts(self, grid: Tensor) -> np.ndarray | None:
        """What the judge's classifier takes each of a grid's images for, a class.

        int64 [noises, classes], of uint8 [noises, classes, C, H, W], on rank 0; None without a classifier.
        """
        if self.judge.kept_features is None:
            return None
        _, logits = self.judge.extractors[self.judge.kept_features](grid.flatten(0, 1).to(self.ranks.device))
        return logits.argmax(dim=1).view(grid.shape[:2]).cpu().numpy()

    def real_row(self) -> Row | None:
        """The row of as many held-out real images as an evaluation draws samples (or all there are).

        None where there are none.
        """
        if self.judge.heldout_images is None:
            return None
        metrics, count = self.judge.real(len(self.seeds), self.config.sample_batch, self.stop)
        return Row(
            "real",
            "real",
            0,
            nfe=0,
            samples=count,
            metrics=metrics,
            chosen_by=self.judge.chosen_by,
            classifier=self.judge.classifier,
        )

    def difference(self, one: Evaluation, other: Evaluation) -> list[float] | None:
        """FD(one) - FD(other) with its bootstrap interval; None where features are too many for one."""
        if self.judge.kept_features is None:
            return None
        return self.ranks.on_main(lambda: list(self.judge.difference(one.features, other.features)))

    def description(self) -> dict[str, Any]:
        """What the rows are measured with: only rows with the same description compare."""
        numbers = self.model.sampler_options(self.config).numbers
        return {
            "name": ",".join(self.judge.protocols),
            "samples": len(self.seeds),
            "seeds": [self.seeds[0], self.seeds[-1]],
            "classes": "in turn" if self.labels.equal(self._in_turn()) else "drawn by seed",
            **{name: n for name, n in numbers.items() if name in self.model.sampler_defaults},
            **({} if self.guided_by is None else {"guide": self.guided_by}),
            "protocols": self.judge.described(),
        }

    def _in_turn(self) -> Tensor:
        classes = torch.tensor(self.classes or [0])
        return classes[torch.arange(len(self.seeds)) % len(classes)]

    def _sampler(self, net: nn.Module, guidance: float | None) -> Sampler:
        guide = None if guidance is None or self.guide is None else self.guide()
        return self.model.sampler(net, self.config, guidance=guidance, guide=guide)

    def _see(
        self, sampler: Sampler, seeds: Sequence[int], labels: Tensor, description: str
    ) -> dict[str, Collected]:
        """What the judge sees in a sample of each (seed, label)."""
        batches = self._batches(sampler, seeds, labels, description)
        return seen_in_samples(self.judge, len(seeds), batches, self.decode)

    def _grid(self, sampler: Sampler) -> Tensor | None:
        places = {"batch_size": self.config.sample_batch, "ranks": self.ranks, "stop": self.stop}
        return grid_samples(sampler, self.grid_seeds, self.grid_classes, self.decode, **places)

    def _batches(
        self, sampler: Sampler, seeds: Sequence[int], labels: Tensor, description: str
    ) -> Iterator[Batch]:
        size = self.config.sample_batch
        return generate(
            sampler,
            seeds,
            labels,
            batch_size=size,
            ranks=self.ranks,
            stop=self.stop,
            description=description,
        )


def seen_in_samples(
    judge: Judge, num_samples: int, batches: Iterable[Batch], decode: Callable[[Tensor], Tensor]
) -> dict[str, Collected]:
    """What a judge sees in samples, a batch at a time as they are made; all ranks call it."""
    collector = judge.collector(num_samples)
    for batch in batches:
        collector.add(decode(batch.x), batch.places)
    return collector.collected()
