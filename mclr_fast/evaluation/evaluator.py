"""Rows of the table: sample, extract features, score; each kept on disk, so a rerun repeats none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mclr_fast.config import EvalConfig
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors
from mclr_fast.sampling.generate import generate

from .protocol import Features, Protocol

GRID_POOL = 20  # seeds among which the grid's noises are looked for


@dataclass(frozen=True)
class Evaluation:
    """One row, the features it was computed from, and its pictures for the same-noise grid.

    Shapes    features [n,D]; grid uint8 [noises, classes, C, H, W].
    """

    row: dict
    features: Tensor
    grid: Tensor


class Evaluator:
    """Evaluates networks under one protocol with one set of sampling seeds."""

    def __init__(
        self,
        protocol: Protocol,
        config: EvalConfig,
        seeds: Sequence[int],
        image_shape: tuple[int, int, int],
        num_classes: int,
        folder: Path,
        ranks: Ranks,
        stop: StopRequest,
    ):
        self.protocol = protocol
        self.config = config
        self.seeds = seeds
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.folder = folder
        self.ranks = ranks
        self.stop = stop
        self.grid_seeds = list(seeds[: config.grid_noises])

    def choose_grid_seeds(self, base: Callable) -> None:
        """Grid noises: the first seed, and of the first 20 those where `base` is least class-specific.

        That is, where the classifier's mean probability of the class asked for is lowest. So the grid
        shows an ordinary noise and one where there is something to mend, and nobody picks it.
        """
        pool = list(self.seeds[:GRID_POOL])
        images = self._grid(base, pool, 1.0)
        probs = self.protocol.features(images.flatten(0, 1)).probs
        own_class = probs.unflatten(0, (len(pool), -1)).diagonal(dim1=1, dim2=2).mean(dim=1)
        hardest = [pool[i] for i in own_class.argsort(stable=True).tolist() if pool[i] != pool[0]]
        self.grid_seeds = [pool[0], *hardest][: self.config.grid_noises]

    def is_kept(self, name: str, images_seen: int) -> bool:
        """Whether this evaluation was made before."""
        return self.ranks.on_main(self.path(name, images_seen).exists)

    def path(self, name: str, images_seen: int) -> Path:
        """Where this evaluation is kept."""
        return self.folder / f"{name}-{images_seen}.safetensors"

    def evaluate(
        self,
        net: Callable,
        name: str,
        images_seen: int,
        *,
        guidance: float = 1.0,
        before_saving: Callable[[dict], None] = lambda row: None,
    ) -> Evaluation:
        """The row `name` at `images_seen`: read if it was made before, else sampled and scored.

        `before_saving(row)` runs on rank 0 before the row is kept (to save the best model first).
        Labels go round the classes: sample i is of class i mod num_classes.
        """
        path = self.path(name, images_seen)
        if self.is_kept(name, images_seen):
            groups, row = self.ranks.on_main(load_tensors, path)
            return Evaluation(row, groups["seen"]["features"], groups["grid"]["images"])
        labels = torch.arange(len(self.seeds)) % self.num_classes
        images = self._generate(net, self.seeds, labels, guidance, f"{name} samples")
        grid = self.grid(net, guidance)
        seen = self.protocol.features(images)
        calls = (2 * self.config.num_steps - 1) * (1 if guidance == 1 else 2)
        row = {
            "name": name,
            "images_seen": images_seen,
            "nfe": calls,
            "samples": len(images),
            **self.protocol.metrics(seen, labels),
        }

        def keep() -> None:
            before_saving(row)
            groups = {"seen": {"features": seen.features}, "grid": {"images": grid}}
            save_tensors(path, groups, row)

        self.ranks.on_main(keep)
        return Evaluation(row, seen.features, grid)

    def grid(self, net: Callable, guidance: float) -> Tensor:
        """Every class from the grid's few initial noises: uint8 [noises, classes, C, H, W]."""
        return self._grid(net, self.grid_seeds, guidance)

    def real_row(self, seen: Features, labels: Tensor) -> dict:
        """The row of as many held-out real images as an evaluation draws samples (or all there are)."""
        chosen = slice(0, len(self.seeds))
        part = Features(seen.features[chosen], seen.probs[chosen])
        metrics = self.protocol.metrics(part, labels[chosen], is_heldout=True)
        counts = {"images_seen": 0, "nfe": 0, "samples": len(part.features)}
        return {"name": "real", **counts, **metrics}

    def _grid(self, net: Callable, noises: Sequence[int], guidance: float) -> Tensor:
        seeds = [seed for seed in noises for _ in range(self.num_classes)]
        labels = torch.arange(self.num_classes).repeat(len(noises))
        images = self._generate(net, seeds, labels, guidance, "grid")
        return images.unflatten(0, (-1, self.num_classes))

    def _generate(self, net, seeds, labels, guidance, description) -> Tensor:
        return generate(
            net,
            seeds,
            labels,
            self.image_shape,
            self.config,
            self.ranks,
            self.stop,
            guidance=guidance,
            description=description,
        )
