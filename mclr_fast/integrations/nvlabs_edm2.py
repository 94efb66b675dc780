"""Losses for NVIDIA's own EDM2 training loop, another `class_name` in its `loss_kwargs`; and for any other.

Every loss is called as EDM2Loss is, `loss_fn(net=net, images=images, labels=labels)`, and returns a loss an
image, which their loop sums, divides by the batch and back-propagates. The net is any denoiser
(`asked.Call`), the labels one-hot or class indices. All N(1+K) evaluations are one forward: in training mode
EDM2's layers write normalised weights into the parameters, so a second forward before the backward fails.
Noise and pairs come from torch's generator, pairs from the local minibatch.
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

from .asked import SIGMA_DATA, Call, Classes, check_minibatch
from .frozen_reference import unwrapped
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
        P_mean, P_std: ln sigma ~ N(P_mean, P_std^2), as the base was trained: -0.8 and 1.6 for img64's
            presets, -0.4 and 1.0, EDM2Loss's own, for img512's.
        sigma_data: default: what the net says (`net.sigma_data`), else EDM's 0.5.
        num_negatives: K; a step holds 1+K times as many evaluations as images, so the images a GPU holds
            at once have to be fewer by that factor.
    """

    P_mean: float = field(default=-0.4, kw_only=True)
    P_std: float = field(default=1.0, kw_only=True)
    sigma_data: float | None = field(default=None, kw_only=True)
    num_negatives: int = field(default=3, kw_only=True)

    def __post_init__(self):
        self.objective()  # refuses settings out of range
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {self.num_negatives}.")

    @abstractmethod
    def objective(self) -> MCLR | CCDPO | CCA | DDO:
        """The function on the table of energies, from the settings."""

    def columns(self, images: Tensor, labels: Tensor, num_classes: int | None) -> TableRows:
        """Rows of the table for images [N,C,H,W] of classes [N]: wrong labels on the same image."""
        index = local_pairs(labels, self.num_negatives)
        return TableRows(images, torch.cat([labels[:, None], labels[index]], dim=1))

    def reference_energies(self, net: nn.Module, evaluate) -> Tensor | None:
        """Energies [N,R] of the frozen reference, by `evaluate(reference)`; None where none is needed."""
        return None

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of each image.

        Shapes    images: [N,C,H,W], as the net takes them; labels: class indices [N], or one-hot
                  [N,classes] -> float32 [N].
        Network   as `asked.Call` says, bare or inside DistributedDataParallel; called once, with
                  [N(1+K),C,H,W].
        Errors    ValueError for images or labels that cannot be the net's, or an image without
                  negatives here.
        """
        check_minibatch(images, labels)
        classes = Classes.of(net, labels)
        noise = NoiseLevel(self.P_mean, self.P_std, self._sigma_data(net))
        images = images.float()
        sigma = noise.sigma(torch.randn(len(images), 1, 1, 1, device=images.device))
        sigma_eps = sigma * torch.randn_like(images)
        x, labels_NR = self.columns(images, classes.index, classes.num_classes)
        num_images, num_columns = labels_NR.shape

        x_noisy = x + (sigma_eps if x.ndim == 4 else sigma_eps[:, None])
        flat_x = x_noisy if x.ndim == 5 else x_noisy[:, None].expand(-1, num_columns, -1, -1, -1)
        call = Call(
            flat_x.flatten(0, 1),
            sigma.flatten().repeat_interleave(num_columns),
            classes.for_net(labels_NR.flatten()),
        )

        def energies(denoised: Tensor) -> Tensor:
            return weighted_sq_error(
                denoised.unflatten(0, (num_images, num_columns)),
                x,
                x_noisy,
                sigma.flatten(),
                noise.weight(sigma).flatten(),
                sigma_data=noise.sigma_data,
                output="denoised",
            )

        reference_NR = self.reference_energies(net, lambda reference: energies(call.denoised(reference)))
        denoised, logvar = call.of(net)
        loss_N = self.objective()(energies(denoised), reference_NR).loss_N
        if logvar is None:
            return loss_N
        # Every parameter stays in the graph: DistributedDataParallel stops at the second step otherwise.
        return loss_N + 0 * logvar.reshape(num_images, num_columns).sum(dim=1)

    def _sigma_data(self, net: nn.Module) -> float:
        if self.sigma_data is not None:
            return self.sigma_data
        return float(getattr(unwrapped(net), "sigma_data", SIGMA_DATA))


@dataclass(eq=False)
class MCLRLoss(ContrastLoss):
    """MCLR, eq. 22: wrong labels on the same noisy image.

    Args: as `ContrastLoss`; dsm_weight: beta of eq. 160, the share of denoising.
    """

    P_mean: float = -0.4
    P_std: float = 1.0
    sigma_data: float | None = None
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

    def columns(self, images: Tensor, labels: Tensor, num_classes: int | None) -> TableRows:
        """Rows of the table: the image, and images of other classes, under the row's label."""
        index = local_pairs(labels, self.num_negatives)
        x = torch.cat([images[:, None], images[index]], dim=1)
        return TableRows(x, labels[:, None].expand(-1, x.shape[1]))


@dataclass(eq=False)
class CCDPOLoss(ReferenceLoss):
    """CC-DPO, eq. 156. Args: beta > 0; the rest as `ContrastLoss` and `ReferenceLoss`."""

    beta: float
    reference: str | nn.Module | None = None

    def objective(self) -> CCDPO:
        """Eq. 156."""
        return CCDPO(self.beta)


@dataclass(eq=False)
class CCALoss(ReferenceLoss):
    """CCA, eq. 159. Args: beta, lambda_ > 0; pairing: "images", or "labels" as MCLR's; the rest as above."""

    beta: float
    lambda_: float
    reference: str | nn.Module | None = None
    pairing: str = field(default="images", kw_only=True)

    def objective(self) -> CCA:
        """Eq. 159."""
        return CCA(self.beta, self.lambda_, self.pairing)

    def columns(self, images: Tensor, labels: Tensor, num_classes: int | None) -> TableRows:
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
    reference: str | nn.Module | None = None

    _samples = None  # opened when it is needed

    def __post_init__(self):
        super().__post_init__()
        self.negatives = os.fspath(self.negatives)
        self._samples = Samples(self.negatives)

    def objective(self) -> DDO:
        """CCA's form, alpha for lambda."""
        return DDO(self.beta, self.alpha)

    def columns(self, images: Tensor, labels: Tensor, num_classes: int | None) -> TableRows:
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
            "once; the loss contrasts at least 2: raise --batch-gpu (--batch alone adds rounds of as many); "
            "in a loop of yours, raise the batch size or shuffle the data."
        ) from None
