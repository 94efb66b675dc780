"""One step's data: images, labels, and what the family draws a row."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from mclr_fast.config import ObjectiveConfig
from mclr_fast.data import Codec, Dataset, SampleOrder
from mclr_fast.data.samples import to_device
from mclr_fast.models.family import Law
from mclr_fast.models.rows import OWN_REFERENCE, Rows
from mclr_fast.runtime.device.staging import Staged, staging
from mclr_fast.runtime.process.ranks import Ranks

from .columns import Columns, Draw, SampleSources
from .prefetch import Prefetch


class MinibatchSource:
    """Draws the minibatch of any step: a pure function of (seed, images seen) and of `samples`.

    Those of the next steps are drawn, and brought to the device, while this one is trained on.

    Attributes: samples, and own_reference (the reference's energies of the data's images, where they are
    kept), which may be replaced between steps; waited, seconds spent waiting for data.
    """

    def __init__(
        self,
        dataset: Dataset,
        codec: Codec,
        law: Law,
        objective: ObjectiveConfig,
        columns: Columns,
        label_dropout: float,
        batch_size: int,
        seed: int,
        ranks: Ranks,
        flip: bool = False,
    ):
        self.dataset = dataset
        self.codec = codec
        self.law = law
        self.objective = objective
        self.columns = columns
        self.label_dropout = label_dropout
        self.batch_size = batch_size
        self.seed = seed
        self.ranks = ranks
        self.flip = flip
        self.order = SampleOrder(len(dataset), seed)
        self._samples = SampleSources()
        self._own_reference: Tensor | None = None
        self._staging = staging(ranks.device)
        self._next = Prefetch(self._staged, batch_size)

    @property
    def samples(self) -> SampleSources:
        """Sources of images beside the data."""
        return self._samples

    @samples.setter
    def samples(self, samples: SampleSources) -> None:
        self._samples = samples
        self._forget()

    @property
    def own_reference(self) -> Tensor | None:
        """float32 [len(dataset)], on the CPU; None: not kept."""
        return self._own_reference

    @own_reference.setter
    def own_reference(self, energies: Tensor | None) -> None:
        self._own_reference = energies
        self._forget()

    def _forget(self) -> None:
        self._staging.follow()  # what is drawn from may just have been computed
        self._next.forget()

    @property
    def waited(self) -> float:
        """Seconds that `draw` has waited."""
        return self._next.waited

    def draw(self, images_seen: int) -> Rows:
        """This rank's rows of the step after `images_seen`. Labels and pairs are drawn globally."""
        staged = self._next(images_seen)
        return self._staging.take(staged, staged.value.tensors)

    def _staged(self, images_seen: int) -> Staged[Rows]:
        return self._staging.bring(partial(self._draw, images_seen))

    def _draw(self, images_seen: int) -> Rows:
        image_N = self.order.indices(np.arange(images_seen, images_seen + self.batch_size))
        draw = Draw(
            self.dataset,
            self.codec,
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
        x, labels = self.columns.draw(draw)
        law, device = self.law(self.seed, draw.position_n), self.ranks.device
        if self._own_reference is not None:
            law = law | {OWN_REFERENCE: self._own_reference[torch.from_numpy(image_N[draw.rows])]}
        num_columns = labels.shape[1]
        return Rows(
            to_device(x, device),
            to_device(labels, device),
            self.columns.shared,
            {name: to_device(value, device) for name, value in law.items()},
            to_device(draw.position_n, device),
            self.seed,
            to_device(torch.tensor(1 / self.batch_size), device),  # the loss is a mean over the minibatch
            to_device(torch.arange(num_columns), device),
            num_columns,
        )
