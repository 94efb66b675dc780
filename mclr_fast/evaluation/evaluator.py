"""Rows of the table: sample, extract features, score; each kept on disk, so a rerun repeats none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mclr_fast.config import EvalConfig
from mclr_fast.models import Model
from mclr_fast.runtime.formats import EVALUATION_FORMAT, evaluation_row
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors
from mclr_fast.sampling.generate import Batch, generate
from mclr_fast.sampling.sampler import Sampler

from .features import Features, in_order
from .protocol import Protocol
from .rows import Kind, Row

GRID_POOL = 20  # seeds among which the grid's noises are looked for


@dataclass(frozen=True)
class Evaluation:
    """One row, the features it was computed from, and its pictures for the same-noise grid.

    Shapes    features [n,D]; grid uint8 [noises, classes, C, H, W].
    """

    row: Row
    features: Tensor
    grid: Tensor


@dataclass
class Evaluator:
    """Evaluates networks, each on the run's device, under one protocol with one set of sampling seeds.

    Images are seen where they are made, a batch at a time: no rank holds more of them, but for the grid's.
    All ranks call its methods, and get the same.

    Args:
        protocol: how images are judged; config: the sampler's options, how many noises the grid has.
        seeds: of the samples; sample i is of class i mod num_classes.
        model: of the networks' kind; decode: its x -> uint8 images [b,C,H,W].
        folder: where evaluations are kept; objective: what the run trains with (older files do not say which
            of their rows is the trained model's).
    """

    protocol: Protocol
    config: EvalConfig
    seeds: Sequence[int]
    num_classes: int
    model: Model
    decode: Callable[[Tensor], Tensor]
    folder: Path
    objective: str
    ranks: Ranks
    stop: StopRequest

    def __post_init__(self):
        self.grid_seeds = list(self.seeds[: self.config.grid_noises])

    def choose_grid_seeds(self, base: nn.Module) -> None:
        """Grid noises: the first seed, and of the first 20 those where `base` is least class-specific.

        That is, where the classifier's mean probability of the class asked for is lowest. So the grid
        shows an ordinary noise and one where there is something to mend, and nobody picks it.
        """
        pool = list(self.seeds[:GRID_POOL])
        seen = self._see(self._sampler(base, None), *self._each_class(pool), "grid")
        probs = seen.probs.unflatten(0, (len(pool), -1))
        own_class = probs.diagonal(dim1=1, dim2=2).mean(dim=1)
        hardest = [pool[i] for i in own_class.argsort(stable=True).tolist() if pool[i] != pool[0]]
        self.grid_seeds = [pool[0], *hardest][: self.config.grid_noises]

    def evaluate(
        self, net: nn.Module, name: str, kind: Kind, images_seen: int = 0, *, guidance: float | None = None
    ) -> Evaluation:
        """The evaluation `name` at `images_seen`: read if it was made before, else made and kept."""
        found = self.kept(name, images_seen)
        if found is None:
            found = self.make(net, name, kind, images_seen, guidance=guidance)
            self.keep(found)
        return found

    def make(
        self, net: nn.Module, name: str, kind: Kind, images_seen: int = 0, *, guidance: float | None = None
    ) -> Evaluation:
        """Sample and score; nothing is written."""
        started = time.perf_counter()
        sampler = self._sampler(net, guidance)
        labels = torch.arange(len(self.seeds)) % self.num_classes
        seen = self._see(sampler, self.seeds, labels, f"{name} samples")
        grid = self._grid(sampler)

        def row() -> Row:  # on one rank, so that all decide by the same figures
            return Row(
                name=name,
                kind=kind,
                images_seen=images_seen,
                nfe=sampler.nfe,
                samples=len(labels),
                metrics={self.protocol.name: self.protocol.metrics(seen, labels)},
                chosen_by=self.protocol.name,
                guidance=sampler.guidance,
                unguided=sampler.unguided,
                seconds=time.perf_counter() - started,
            )

        return Evaluation(self.ranks.on_main(row), seen.features, grid)

    def path(self, name: str, images_seen: int) -> Path:
        """Where this evaluation is kept."""
        return self.folder / f"{name}-{images_seen}.safetensors"

    def kept(self, name: str, images_seen: int) -> Evaluation | None:
        """The evaluation that was kept; None if it was not made before."""
        path = self.path(name, images_seen)
        if not self.ranks.on_main(path.exists):
            return None
        groups, meta = self.ranks.on_main(load_tensors, path)
        row = Row.from_json(evaluation_row(meta, self.objective, path))
        return Evaluation(row, groups["seen"]["features"], groups["grid"]["images"])

    def keep(self, evaluation: Evaluation) -> None:
        """Write it where `kept` finds it."""
        row = evaluation.row
        groups = {"seen": {"features": evaluation.features}, "grid": {"images": evaluation.grid}}
        meta = {"format": EVALUATION_FORMAT, **row.to_json()}
        self.ranks.on_main(save_tensors, self.path(row.name, row.images_seen), groups, meta)

    def grid(self, net: nn.Module, guidance: float) -> Tensor:
        """Every class from the grid's few initial noises: uint8 [noises, classes, C, H, W]."""
        return self._grid(self._sampler(net, guidance))

    def real_row(self) -> Row:
        """The row of as many held-out real images as an evaluation draws samples (or all there are)."""
        metrics, samples = self.protocol.real(len(self.seeds))
        name = self.protocol.name
        return Row("real", "real", 0, nfe=0, samples=samples, metrics={name: metrics}, chosen_by=name)

    def description(self) -> dict:
        """What the rows are measured with: only rows with the same description compare."""
        return {
            "name": self.protocol.name,
            "reference": f"{len(self.protocol.reference.features):,} training images",
            "samples": len(self.seeds),
            "seeds": [self.seeds[0], self.seeds[-1]],
            "num_steps": self.config.num_steps,
            "sigma_min": self.config.sigma_min,
            "sigma_max": self.config.sigma_max,
            "k": self.config.neighbors,
        }

    def _sampler(self, net: nn.Module, guidance: float | None) -> Sampler:
        return self.model.sampler(net, self.config, guidance=guidance)

    def _each_class(self, noises: Sequence[int]) -> tuple[list[int], Tensor]:
        """Seeds and labels: every class from each of these noises."""
        seeds = [seed for seed in noises for _ in range(self.num_classes)]
        return seeds, torch.arange(self.num_classes).repeat(len(noises))

    def _see(self, sampler: Sampler, seeds: Sequence[int], labels: Tensor, description: str) -> Features:
        """What the protocol sees in a sample of each (seed, label)."""
        collector = self.protocol.collector()
        for batch in self._batches(sampler, seeds, labels, description):
            collector.add(self.decode(batch.x), batch.places)
        return collector.gather(self.ranks)

    def _grid(self, sampler: Sampler) -> Tensor:
        batches = self._batches(sampler, *self._each_class(self.grid_seeds), "grid")
        own = [(batch.places, self.decode(batch.x).cpu()) for batch in batches]
        images = in_order(part for parts in self.ranks.gather(own) for part in parts)
        return images.unflatten(0, (-1, self.num_classes))

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
