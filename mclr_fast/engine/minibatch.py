"""One step's data: images, labels, noise levels, and how they are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mclr_fast import ops
from mclr_fast.config import ObjectiveConfig
from mclr_fast.data import Dataset, LatentEncoder, SampleOrder, encoder_for
from mclr_fast.objectives import NoiseLevel, pair_labels

from . import rng
from .distributed import Ranks


@dataclass(frozen=True)
class Minibatch:
    """One rank's rows of a step, or a part of them.

    Shapes: x [n,C,H,W], shared by the row, or [n,R,C,H,W]; labels [n,R]; sigma, weight, position [n].
    """

    x: Tensor
    labels: Tensor
    sigma: Tensor
    weight: Tensor
    position: Tensor

    def part(self, rows: slice, columns: slice) -> Minibatch:
        """The evaluations of these rows and columns."""
        x = self.x[rows] if self.x.ndim == 4 else self.x[rows, columns]
        return Minibatch(
            x, self.labels[rows, columns], self.sigma[rows], self.weight[rows], self.position[rows]
        )


class MinibatchSource:
    """Draws the minibatch of any step: a pure function of (seed, images seen)."""

    def __init__(
        self,
        dataset: Dataset,
        objective: ObjectiveConfig,
        noise: NoiseLevel,
        batch_size: int,
        seed: int,
        ranks: Ranks,
    ):
        self.dataset = dataset
        self.objective = objective
        self.noise = noise
        self.batch_size = batch_size
        self.seed = seed
        self.ranks = ranks
        self.order = SampleOrder(len(dataset), seed)
        self.encoder = encoder_for(dataset)

    def draw(self, images_seen: int) -> Minibatch:
        """This rank's rows of the step after `images_seen`. Labels and pairs are drawn globally."""
        position = np.arange(images_seen, images_seen + self.batch_size)
        image_N = self.order.indices(position)
        label_N = torch.from_numpy(self.dataset.labels[image_N])
        rows = self.ranks.rows(self.batch_size)
        position_N = torch.from_numpy(position)[rows]

        image = image_N[rows]
        if self.objective.objective == "denoising":
            label = rng.dropped_labels(self.seed, position_N, label_N[rows], self.objective.label_dropout)[
                :, None
            ]
        else:
            negative_NK = pair_labels(
                label_N,
                self.objective.num_negatives,
                include_own=self.objective.include_own,
                generator=rng.pairing_generator(self.seed, images_seen),
            )
            tuple_NR = torch.cat([torch.arange(self.batch_size)[:, None], negative_NK], dim=1)[rows]
            label = label_N[tuple_NR]
            if self.objective.form == 2:
                image, label = image_N[tuple_NR.numpy()], label[:, :1].expand_as(label)

        sigma = self.noise.sigma(rng.sigma_normals(self.seed, position_N))
        batch = (
            self._encode(image, position_N),
            label,
            sigma,
            self.noise.weight(sigma),
            position_N,
        )
        return Minibatch(*(value.to(self.ranks.device) for value in batch))

    def _encode(self, image: np.ndarray, position: Tensor) -> Tensor:
        raw = torch.from_numpy(self.dataset.images(image.ravel()))
        if not isinstance(self.encoder, LatentEncoder):
            x = self.encoder.encode(raw)
        else:
            columns = image.size // len(position)
            mean_shape = (raw.shape[1] // 2, *raw.shape[2:])
            normal = rng.latent_normals(self.seed, position, columns * int(np.prod(mean_shape)))
            x = self.encoder.encode(raw, normal.view(-1, *mean_shape))
        return x.unflatten(0, image.shape) if image.ndim == 2 else x


def micro_batches(batch: Minibatch, num_evaluations: int) -> Iterator[tuple[Minibatch, slice]]:
    """Cut a minibatch into parts of at most `num_evaluations` (0 = one part), with their columns.

    Whole rows while they fit; a row larger than a part is cut by columns, which objectives with
    constant coefficients allow.
    """
    num_rows, num_columns = batch.labels.shape
    size = num_evaluations or num_rows * num_columns
    width = min(size, num_columns)
    height = max(size // num_columns, 1)
    for row in range(0, num_rows, height):
        for column in range(0, num_columns, width):
            columns = slice(column, min(column + width, num_columns))
            yield batch.part(slice(row, row + height), columns), columns


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
