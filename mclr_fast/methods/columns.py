"""What the columns of a row are: which images, under which labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mclr_fast.data import Codec, Dataset, rng
from mclr_fast.data.samples import ClassSamples, encode, to_device
from mclr_fast.objectives import pair_labels


@dataclass(frozen=True)
class SampleSources:
    """Sources of images beside the data: p+ (None = the data) and the model's samples, or p-."""

    plus: ClassSamples | None = None
    minus: ClassSamples | None = None


@dataclass(frozen=True)
class Draw:
    """One rank's share of a step, before it is told what its columns are.

    Everything is keyed by (seed, position in the run): the same at any world size. Negatives are images of
    the data; any rank can read any image, so nothing is gathered from other ranks.

    Shapes    image_N, label_N: int64 [N], of the global minibatch; rows: this rank's share of it.
    """

    dataset: Dataset
    codec: Codec
    samples: SampleSources
    seed: int
    images_seen: int
    image_N: np.ndarray
    label_N: Tensor
    rows: slice
    num_negatives: int
    include_own: bool
    label_dropout: float
    flip: bool
    device: torch.device

    @property
    def labels(self) -> Tensor:
        """The rows' own labels, int64 [n]."""
        return self.label_N[self.rows]

    @property
    def position_n(self) -> Tensor:
        """The rows' positions in the run, int64 [n]."""
        return torch.arange(self.images_seen + self.rows.start, self.images_seen + self.rows.stop)

    def negatives(self, include_own: bool = False) -> np.ndarray:
        """Each row's negatives as images of the data, int64 [n,K].

        They are the global minibatch's. Where that holds one class alone they are drawn from all images of
        other classes. The law of a negative is the same: of a random minibatch that has some, each is any
        of the data's images of other classes, all equally likely.
        Errors    ValueError where the data have no other class.
        """
        generator = rng.pairing_generator(self.seed, self.images_seen)
        include_own = include_own or self.include_own
        if not include_own and bool((self.label_N == self.label_N[0]).all()):
            elsewhere = np.flatnonzero(self.dataset.labels != int(self.label_N[0]))
            if len(elsewhere):
                shape = (len(self.label_N), self.num_negatives)
                return elsewhere[torch.randint(len(elsewhere), shape, generator=generator)[self.rows].numpy()]
        places = pair_labels(self.label_N, self.num_negatives, include_own=include_own, generator=generator)
        return self.image_N[places[self.rows].numpy()]

    def images(self, index: np.ndarray, first_column: int = 0) -> Tensor:
        """Images of the data, int64 [n,k] -> float32 [n,k,*shape]; they are columns from first_column."""
        return self._encode(self.dataset, index, first_column)

    def own_images(self) -> Tensor:
        """The rows' own images, [n,*shape]."""
        return self.images(self.image_N[self.rows][:, None])[:, 0]

    def class_samples(self, source: ClassSamples, columns: slice) -> Tensor:
        """Samples of the rows' classes for these columns, [n,k,*shape]."""
        uniform = rng.sample_uniforms(self.seed, self.position_n, columns.stop)[:, columns]
        return self._encode(source.dataset, source.indices(self.labels, uniform), columns.start)

    def _encode(self, dataset: Dataset, index: np.ndarray, first_column: int) -> Tensor:
        x = encode(dataset, self.codec, index, self.seed, self.position_n, first_column, self.device)
        if not self.flip:
            return x
        flipped = rng.flips(self.seed, self.position_n, first_column + index.shape[1])[:, first_column:]
        flipped = to_device(flipped, self.device)
        return torch.where(flipped.view(*index.shape, *[1] * (x.ndim - 2)), x.flip(-1), x)


class Drawn(NamedTuple):
    """x: float32 [n,*shape], shared by the row, or [n,R,*shape]; labels: int64 [n,R]."""

    x: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Columns:
    """The columns of a row: the positive, then K negatives, then perhaps a sample that is neither.

    Attributes:
        draw: a rank's share of a step -> its images and labels.
        shared: all columns are one image.
        labels: whose labels, or images, the negatives are: "others" of the minibatch, or where it has none
            of the data, "all" of the minibatch, or none of it (None).
        has_negatives, has_sample: which of the kinds there are.
    """

    draw: Callable[[Draw], Drawn]
    shared: bool
    labels: Literal["others", "all"] | None
    has_negatives: bool = True
    has_sample: bool = False

    def kinds(self, num_negatives: int) -> list[str]:
        """What each column is, of rows with K negatives; R of them."""
        return ["positive"] + ["negative"] * num_negatives * self.has_negatives + ["sample"] * self.has_sample

    def means(self, energies: list[float], num_negatives: int) -> dict[str, float]:
        """Mean energies by column [R] -> by kind."""
        kinds = self.kinds(num_negatives)
        return {
            kind: sum(e for e, k in zip(energies, kinds, strict=True) if k == kind) / kinds.count(kind)
            for kind in dict.fromkeys(kinds)
        }


def _own_label(draw: Draw) -> Drawn:
    return Drawn(draw.own_images(), _some_dropped(draw, draw.labels[:, None]))


def _other_labels(draw: Draw, include_own: bool = False) -> Drawn:
    negative = torch.from_numpy(draw.dataset.labels[draw.negatives(include_own)])
    labels = torch.cat([draw.labels[:, None], negative], dim=1)
    return Drawn(draw.own_images(), _some_dropped(draw, labels))


def _any_labels(draw: Draw) -> Drawn:
    return _other_labels(draw, include_own=True)


def _other_images(draw: Draw) -> Drawn:
    index = np.concatenate([draw.image_N[draw.rows][:, None], draw.negatives()], axis=1)
    labels = _repeated(draw.labels, 1 + draw.num_negatives)
    return Drawn(draw.images(index), _some_dropped(draw, labels))


def _class_samples(draw: Draw) -> Drawn:
    num_columns = 1 + draw.num_negatives
    if draw.samples.plus is None:
        positive = draw.own_images()[:, None]
    else:
        positive = draw.class_samples(draw.samples.plus, slice(0, 1))
    negative = draw.class_samples(draw.samples.minus, slice(1, num_columns))
    return Drawn(torch.cat([positive, negative], dim=1), _repeated(draw.labels, num_columns))


def _labels_and_sample(draw: Draw) -> Drawn:
    x, labels = _other_labels(draw)
    num_shared = labels.shape[1]
    sample = draw.class_samples(draw.samples.minus, slice(num_shared, num_shared + 1))
    x = torch.cat([x[:, None].expand(-1, num_shared, *x.shape[1:]), sample], dim=1)
    return Drawn(x, torch.cat([labels, draw.labels[:, None]], dim=1))


def _some_dropped(draw: Draw, labels: Tensor) -> Tensor:
    """The labels int64 [n,R] with those of some rows, drawn, all -1."""
    kept = rng.dropped_labels(draw.seed, draw.position_n, draw.labels, draw.label_dropout)
    return labels if draw.label_dropout == 0 else torch.where(kept[:, None] < 0, kept[:, None], labels)


def _repeated(labels: Tensor, num_columns: int) -> Tensor:
    """int64 [n] -> [n,R]."""
    return labels[:, None].expand(-1, num_columns)


own_label = Columns(_own_label, shared=True, labels=None, has_negatives=False)
"""R = 1: the image under its label, now and then under none (label -1)."""
other_labels = Columns(_other_labels, shared=True, labels="others")
"""R = 1+K: one image under its own label and under K of the minibatch's (Algorithm 1)."""
any_labels = Columns(_any_labels, shared=True, labels="all")
"""R = 1+K: as `other_labels`, of all labels: c~ ~ p(c), which Theorem 3 needs."""
other_images = Columns(_other_images, shared=False, labels="others")
"""R = 1+K: the image and K of the minibatch's under the row's label (Algorithm 2)."""
class_samples = Columns(_class_samples, shared=False, labels=None)
"""R = 1+K: the image, or a sample of p+, and K samples of p-, all of the row's class and under it."""
labels_and_sample = Columns(_labels_and_sample, shared=False, labels="others", has_sample=True)
"""R = 2+K: the columns of `other_labels`, then a sample of the row's class under its label (eq. 13)."""
