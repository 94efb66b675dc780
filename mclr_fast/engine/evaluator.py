"""Rows of the table: sample, extract features, score; each kept on disk, so a rerun repeats none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mclr_fast.config import EvalConfig
from mclr_fast.evaluation.protocol import Features, Protocol

from .checkpoint import load_tensors, save_tensors
from .distributed import Ranks
from .generate import generate
from .signals import StopRequest


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
        if path.exists():
            groups, row = load_tensors(path)
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
        """Every class from the same few initial noises: uint8 [noises, classes, C, H, W]."""
        noises = [seed for seed in self.seeds[: self.config.grid_noises] for _ in range(self.num_classes)]
        labels = torch.arange(self.num_classes).repeat(len(noises) // self.num_classes)
        images = self._generate(net, noises, labels, guidance, "grid")
        return images.unflatten(0, (-1, self.num_classes))

    def real_row(self, seen: Features, labels: Tensor) -> dict:
        """The row of as many held-out real images as an evaluation draws samples (or all there are)."""
        chosen = slice(0, len(self.seeds))
        part = Features(seen.features[chosen], seen.probs[chosen])
        metrics = self.protocol.metrics(part, labels[chosen], is_heldout=True)
        counts = {"images_seen": 0, "nfe": 0, "samples": len(part.features)}
        return {"name": "real", **counts, **metrics}

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
