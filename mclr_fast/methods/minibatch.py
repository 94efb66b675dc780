"""One step's data: images, labels, noise levels, and how they are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mclr_fast import ops
from mclr_fast.config import ObjectiveConfig
from mclr_fast.data import Dataset, SampleOrder, rng
from mclr_fast.data.samples import to_device
from mclr_fast.objectives import NoiseLevel
from mclr_fast.runtime.ranks import Ranks

from .columns import Draw, Samples, Tuples
from .prefetch import Ahead


@dataclass(frozen=True)
class Minibatch:
    """One rank's rows of a step, or a part of them.

    Shapes: x [n,C,H,W], shared by the row, or [n,w,C,H,W]; labels [n,w]; sigma, weight, position [n].
    The w columns are the places `columns` of rows of num_columns.
    """

    x: Tensor
    labels: Tensor
    sigma: Tensor
    weight: Tensor
    position: Tensor
    columns: slice
    num_columns: int

    def part(self, rows: slice, columns: slice) -> Minibatch:
        """These rows and columns of a whole minibatch."""
        x = self.x[rows] if self.x.ndim == 4 else self.x[rows, columns]
        per_row = (value[rows] for value in (self.sigma, self.weight, self.position))
        return Minibatch(x, self.labels[rows, columns], *per_row, columns, self.num_columns)

    def column_sums(self, energy: Tensor) -> Tensor:
        """Energies [n,w] -> their sum by column of the whole row, float64 [R], zero where there is none."""
        sums = torch.zeros(self.num_columns, dtype=torch.float64, device=energy.device)
        sums[self.columns] = energy.detach().double().sum(dim=0)
        return sums


class MinibatchSource:
    """Draws the minibatch of any step: a pure function of (seed, images seen) and of `samples`.

    Those of the next steps are drawn while this one is trained on.

    Attributes: samples, which may be replaced between steps; waited, seconds spent waiting for data.
    """

    def __init__(
        self,
        dataset: Dataset,
        objective: ObjectiveConfig,
        tuples: Tuples,
        label_dropout: float,
        noise: NoiseLevel,
        batch_size: int,
        seed: int,
        ranks: Ranks,
        flip: bool = False,
    ):
        self.dataset = dataset
        self.objective = objective
        self.tuples = tuples
        self.label_dropout = label_dropout
        self.noise = noise
        self.batch_size = batch_size
        self.seed = seed
        self.ranks = ranks
        self.flip = flip
        self.order = SampleOrder(len(dataset), seed)
        self._samples = Samples()
        self._ahead = Ahead(self._draw, batch_size)

    @property
    def samples(self) -> Samples:
        """Sources of images beside the data."""
        return self._samples

    @samples.setter
    def samples(self, samples: Samples) -> None:
        self._samples = samples
        self._ahead.forget()

    @property
    def waited(self) -> float:
        """Seconds that `draw` has waited."""
        return self._ahead.waited

    def draw(self, images_seen: int) -> Minibatch:
        """This rank's rows of the step after `images_seen`. Labels and pairs are drawn globally."""
        return self._ahead(images_seen)

    def _draw(self, images_seen: int) -> Minibatch:
        image_N = self.order.indices(np.arange(images_seen, images_seen + self.batch_size))
        draw = Draw(
            self.dataset,
            self._samples,
            self.seed,
            images_seen,
            image_N,
            torch.from_numpy(self.dataset.labels[image_N]),
            self.ranks.rows(self.batch_size),
            self.objective.num_negatives,
            self.objective.include_own,
            self.label_dropout,
            self.flip,
            self.ranks.device,
        )
        x, labels = self.tuples(draw)
        sigma = self.noise.sigma(rng.sigma_normals(self.seed, draw.position_n))
        values = (x, labels, sigma, self.noise.weight(sigma), draw.position_n)
        num_columns = labels.shape[1]
        moved = (to_device(value, self.ranks.device) for value in values)
        return Minibatch(*moved, slice(0, num_columns), num_columns)


def micro_batches(batch: Minibatch, num_evaluations: int, *, separable: bool = True) -> Iterator[Minibatch]:
    """Cut a minibatch into parts of at most `num_evaluations` (0 = one part).

    Whole rows while they fit; a row larger than a part is cut by columns, which only `separable`
    objectives allow.
    """
    num_rows, num_columns = batch.labels.shape
    size = num_evaluations or num_rows * num_columns
    assert separable or size >= num_columns
    width = min(size, num_columns)
    height = max(size // num_columns, 1)
    for row in range(0, num_rows, height):
        for column in range(0, num_columns, width):
            columns = slice(column, min(column + width, num_columns))
            yield batch.part(slice(row, row + height), columns)


def noisy(batch: Minibatch, seed: int, sigma_data: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x + sigma eps of a part, and the network's input made of it (`ops.noisy_input`).

    A row's columns share sigma and eps wherever they are cut.
    """
    return ops.noisy_input(
        batch.x,
        batch.sigma,
        seed,
        rng.NOISE_STREAM,
        batch.position,
        sigma_data=sigma_data,
        dtype=dtype,
    )
