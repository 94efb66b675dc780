"""Losses for NVIDIA's own EDM2 training loop: another `class_name` in its `loss_kwargs`.

Every loss is called as EDM2Loss is, `loss_fn(net=net, images=images, labels=onehot)`, and returns a loss an
image, which their loop sums, divides by the batch and back-propagates. All N(1+K) evaluations are one
forward: in training mode their layers write normalised weights into the parameters, so a second forward
before the backward fails. Noise and pairs come from torch's generator, pairs from the local minibatch.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mclr_fast.objectives import CCA, CCDPO, DDO, MCLR, NoiseLevel, pair_labels
from mclr_fast.objectives.pairing import OneClassError
from mclr_fast.ops import weighted_sq_error

from .kept_reference import KeptReference, LossState
from .samples import Samples


class TableRows(NamedTuple):
    """x [N,C,H,W], shared by the row, or [N,R,C,H,W]; labels int64 [N,R]; column 0 the positive."""

    x: Tensor
    labels: Tensor


@dataclass(eq=False)
class ContrastLoss(LossState, ABC):
    """What the losses share: noise, one forward, energies, an objective.

    Args:
        P_mean, P_std: ln sigma ~ N(P_mean, P_std^2), the base's preset: -0.8 and 1.6 for img64, -0.4 and
            1.0 for img512. sigma_data: EDM2's 0.5.
        num_negatives: K; a step holds 1+K times as many evaluations as images, so the images a GPU holds
            at once have to be fewer by that factor.
    """

    P_mean: float = field(kw_only=True)
    P_std: float = field(kw_only=True)
    sigma_data: float = field(default=0.5, kw_only=True)
    num_negatives: int = field(default=3, kw_only=True)

    def __post_init__(self):
        self.objective()  # refuses settings out of range
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {self.num_negatives}.")

    @abstractmethod
    def objective(self) -> MCLR | CCDPO | CCA | DDO:
        """The function on the table of energies, from the settings."""

    def columns(self, images: Tensor, labels: Tensor, num_classes: int) -> TableRows:
        """Rows of the table for images [N,C,H,W] of classes [N]: wrong labels on the same image."""
        index = local_pairs(labels, self.num_negatives)
        return TableRows(images, torch.cat([labels[:, None], labels[index]], dim=1))

    def reference_energies(self, net: nn.Module, evaluate) -> Tensor | None:
        """Energies [N,R] of the frozen reference, by `evaluate(reference)`; None where none is needed."""
        return None

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of each image.

        Shapes    images: [N,C,H,W], encoded; labels: one-hot [N,label_dim], or class indices [N] where
                  the network says its label_dim -> float32 [N].
        Network   net(x, sigma, labels, return_logvar=True) -> (D, logvar), bare or inside
                  DistributedDataParallel; called once, with [N(1+K),C,H,W].
        Errors    ValueError for labels that are not one-hot, or an image without negatives here.
        """
        labels = one_hot_labels(net, labels)
        classes, num_classes = class_indices(labels), labels.shape[1]
        noise = NoiseLevel(self.P_mean, self.P_std, self.sigma_data)
        images = images.float()
        sigma = noise.sigma(torch.randn(len(images), 1, 1, 1, device=images.device))
        sigma_eps = sigma * torch.randn_like(images)
        x, labels_NR = self.columns(images, classes, num_classes)
        num_images, num_columns = labels_NR.shape

        x_noisy = x + (sigma_eps if x.ndim == 4 else sigma_eps[:, None])
        flat_x = x_noisy if x.ndim == 5 else x_noisy[:, None].expand(-1, num_columns, -1, -1, -1)
        one_hot = nn.functional.one_hot(labels_NR.flatten(), num_classes).to(labels.dtype)
        inputs = (flat_x.flatten(0, 1), sigma.repeat_interleave(num_columns, dim=0), one_hot)

        def energies(denoised: Tensor) -> Tensor:
            return weighted_sq_error(
                denoised.unflatten(0, (num_images, num_columns)),
                x,
                x_noisy,
                sigma.flatten(),
                noise.weight(sigma).flatten(),
                sigma_data=self.sigma_data,
                output="denoised",
            )

        reference_NR = self.reference_energies(net, lambda reference: energies(reference(*inputs)))
        denoised, logvar = net(*inputs, return_logvar=True)
        loss_N = self.objective()(energies(denoised), reference_NR).loss_N
        # Every parameter stays in the graph: DistributedDataParallel stops at the second step otherwise.
        return loss_N + 0 * logvar.reshape(num_images, num_columns).sum(dim=1)


@dataclass(eq=False)
class MCLRLoss(ContrastLoss):
    """MCLR, eq. 22: wrong labels on the same noisy image.

    Args: as `ContrastLoss`; dsm_weight: beta of eq. 160, the share of denoising.
    """

    P_mean: float
    P_std: float
    sigma_data: float = 0.5
    num_negatives: int = 3
    dsm_weight: float = 0.0

    def objective(self) -> MCLR:
        """Eq. 22 or 160."""
        return MCLR(self.dsm_weight)


@dataclass(eq=False)
class ReferenceLoss(KeptReference, ContrastLoss):
    """A loss that compares with a frozen reference: other images under the row's label (Algorithm 2).

    The reference: as `KeptReference`, in float16 as in NVIDIA's snapshots.
    """

    reference_dtype: ClassVar[torch.dtype] = torch.float16

    def reference_energies(self, net: nn.Module, evaluate) -> Tensor:
        """Energies [N,R] of the reference, without gradients, on the same evaluations."""
        with torch.no_grad():
            return evaluate(self.frozen_network(net))

    def columns(self, images: Tensor, labels: Tensor, num_classes: int) -> TableRows:
        """Rows of the table: the image, and images of other classes, under the row's label."""
        index = local_pairs(labels, self.num_negatives)
        x = torch.cat([images[:, None], images[index]], dim=1)
        return TableRows(x, labels[:, None].expand(-1, x.shape[1]))


@dataclass(eq=False)
class CCDPOLoss(ReferenceLoss):
    """CC-DPO, eq. 156. Args: beta > 0; the rest as `ContrastLoss` and `ReferenceLoss`."""

    beta: float
    reference: str | None = None

    def objective(self) -> CCDPO:
        """Eq. 156."""
        return CCDPO(self.beta)


@dataclass(eq=False)
class CCALoss(ReferenceLoss):
    """CCA, eq. 159. Args: beta, lambda_ > 0; pairing: "images", or "labels" as MCLR's; the rest as above."""

    beta: float
    lambda_: float
    reference: str | None = None
    pairing: str = field(default="images", kw_only=True)

    def objective(self) -> CCA:
        """Eq. 159."""
        return CCA(self.beta, self.lambda_, self.pairing)

    def columns(self, images: Tensor, labels: Tensor, num_classes: int) -> TableRows:
        """Rows of the table, by images or by labels."""
        owner = ReferenceLoss if self.pairing == "images" else ContrastLoss
        return owner.columns(self, images, labels, num_classes)


@dataclass(eq=False)
class DDOLoss(ReferenceLoss):
    """DDO: CCA's form against the reference's own samples of the row's class.

    Args: beta, alpha > 0; negatives: an EDM2 dataset (zip or folder with dataset.json) of samples, in the
    format of the training data; the rest as `ContrastLoss` and `ReferenceLoss`.
    """

    beta: float
    alpha: float
    negatives: str
    reference: str | None = None

    _samples = None  # opened when it is needed

    def __post_init__(self):
        super().__post_init__()
        self.negatives = os.fspath(self.negatives)
        self._samples = Samples(self.negatives)

    def objective(self) -> DDO:
        """CCA's form, alpha for lambda."""
        return DDO(self.beta, self.alpha)

    def columns(self, images: Tensor, labels: Tensor, num_classes: int) -> TableRows:
        """Rows of the table: the image, and samples of its class, under the row's label."""
        if self._samples is None:  # restored
            self._samples = Samples(self.negatives)
        samples = self._samples.draw(labels, self.num_negatives, num_classes, images)
        x = torch.cat([images[:, None], samples], dim=1)
        return TableRows(x, labels[:, None].expand(-1, x.shape[1]))


def local_pairs(labels: Tensor, num_negatives: int) -> Tensor:
    """Places of negatives among the images that this GPU holds at once, int64 [N,K], as `pair_labels` has it.

    Errors    ValueError where they are of one class; what mends that in EDM2's loop is its --batch-gpu.
    """
    try:
        return pair_labels(labels, num_negatives)
    except OneClassError:
        raise ValueError(
            f"labels has 1 distinct class in this minibatch of {len(labels)}, all that this GPU holds at "
            "once; the loss contrasts at least 2: raise --batch-gpu (--batch alone adds rounds of as many)."
        ) from None


def one_hot_labels(net: nn.Module, labels: Tensor) -> Tensor:
    """Class indices, integers [N] -> one-hot float32 [N,label_dim]; anything else as it is.

    Errors    ValueError for labels that are not the network's, where it says its label_dim.
    """
    num_classes = getattr(getattr(net, "module", net), "label_dim", None)
    if num_classes == 0:
        raise ValueError("this net has no classes (label_dim 0) to contrast: train one with them (--cond=1).")
    if num_classes is None or num_classes < 2 or labels.numel() == 0 or labels.dtype == torch.bool:
        return labels  # the error of `class_indices` says what is wanted
    if labels.ndim == 2 and labels.is_floating_point() and labels.shape[1] != num_classes:
        raise ValueError(
            f"labels are of {labels.shape[1]} classes; this net knows classes 0 to {num_classes - 1}."
        )
    if labels.ndim != 1 or labels.is_floating_point():
        return labels
    low, high = labels.aminmax()  # SYNC: pairing waits for them anyway
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels lie in [{low}, {high}]; this net knows classes 0 to {num_classes - 1}.")
    return nn.functional.one_hot(labels.long(), num_classes).float()


def class_indices(labels: Tensor) -> Tensor:
    """One-hot floating [N,label_dim] -> class indices int64 [N]; ValueError for anything else."""
    if labels.ndim != 2 or labels.shape[1] < 2 or not labels.is_floating_point() or len(labels) == 0:
        raise ValueError(
            f"labels must be one-hot, floating [N,label_dim] with at least 2 classes, not {labels.dtype} "
            f"{list(labels.shape)}: train with class labels (--cond=1)."
        )
    highest, index = labels.max(dim=1)
    if not bool(((highest == 1) & (labels.sum(dim=1) == 1)).all()):  # SYNC: pairing waits for them anyway
        raise ValueError("labels must be one-hot: some row has not exactly one 1 and else zeros.")
    return index
