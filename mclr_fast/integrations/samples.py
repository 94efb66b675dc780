"""A model's own samples on disk, drawn by class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mclr_fast.data import Codec, open_dataset
from mclr_fast.models import Model
from mclr_fast.models.codecs import codec_for


class Samples:
    """An EDM2 dataset of samples, encoded as the training data is. Images are read when they are drawn."""

    def __init__(self, path: str):
        """FileNotFoundError or ValueError where there is no labelled dataset at `path`."""
        self.path = path
        self.dataset = open_dataset(path)
        self.labels = torch.from_numpy(self.dataset.labels)

    @cached_property
    def codec(self) -> Codec:
        """What encodes them."""
        return codec_for(self.dataset.image_shape)

    @cached_property
    def counts(self) -> Tensor:
        """Samples of each class, int64 [classes]."""
        return self.labels.bincount()

    @cached_property
    def by_class(self) -> Tensor:
        """Positions of all samples, those of class 0 first, then 1, ..."""
        return self.labels.argsort(stable=True)

    def draw(self, labels: Tensor, num_samples: int, num_classes: int | None, like: Tensor) -> Tensor:
        """Samples of the rows' classes, uniform with replacement, by torch's generator.

        Shapes    labels: int64 [N]; like: images [N,C,H,W] -> [N,num_samples,C,H,W] of its dtype and device;
                  num_classes: None where the net does not say them.
        Errors    ValueError for another image shape or number of classes.
        """
        labels = labels.cpu()  # SYNC: the files to read depend on them
        self._check(num_classes or 1 + int(max(self.labels.max(), labels.max())), like)
        start = self.counts.cumsum(0) - self.counts
        rank = (torch.rand(len(labels), num_samples) * self.counts[labels][:, None]).long()
        index = self.by_class[start[labels][:, None] + rank]
        raw = torch.from_numpy(self.dataset.images(index.flatten().numpy()))
        size = self.codec.num_normals
        encoded = self.codec.encode(raw, torch.randn(len(raw), size) if size else None)
        return encoded.unflatten(0, index.shape).to(like)

    def _check(self, num_classes: int, like: Tensor) -> None:
        shape = list(self.codec.shape)
        if shape != list(like.shape[1:]):
            raise ValueError(
                f"the negatives at {self.path} are {shape} images, but the training images are "
                f"{list(like.shape[1:])}: sample them from the model that is trained."
            )
        low, high = self.labels.aminmax()  # counts of a label of 10^12 would not fit in memory
        if low < 0 or high != num_classes - 1 or not self.counts.all():
            raise ValueError(
                f"the negatives at {self.path} are of {len(self.labels.unique())} classes up to "
                f"{high}, but the net knows classes 0 to {num_classes - 1}: sample each of them."
            )


class TokenSamples(Samples):
    """Tokens of samples, as `prepare --tokens` stores them, and the VQVAE that they are of."""

    def __init__(self, path: str):
        """As `Samples`; ValueError for images that are not stored as tokens."""
        super().__init__(path)
        shape = list(self.dataset.image_shape)
        if len(shape) != 1:
            raise ValueError(
                f"the negatives at {path} are {shape} images, not tokens: make tokens of them by "
                "`python -m mclr_fast.prepare`, --tokens."
            )

    def fit(self, patch_nums: Sequence[int], vocab_size: int, z_channels: int, vqvae: str | None) -> None:
        """Say what they have to be of; vqvae: a folder, a file or a published name, None: VAR's own.

        ValueError for another VQVAE, or tokens that it does not have.
        """
        sizes = {"patch_nums": list(patch_nums), "vocab_size": vocab_size, "z_channels": z_channels}
        self.codec = Model.of({"family": "var", "net": sizes | {"vqvae": vqvae}}).codec(self.dataset)

    def inputs(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [n,L] -> what a network is given beside their labels, [n, L - p_0^2, Cv]."""
        return self.codec.teacher_inputs(tokens)
