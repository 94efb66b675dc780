"""Losses for VAR's and CCA's own trainers, called with their model, its labels and inputs, and tokens.

Each is called in place of the cross-entropy, and of the call of the net before it:

    loss = loss_fn(self.var, label_B, x_BLCv_wo_first_l, gt_BL).mean()

Energies are -log p of an image's tokens. All N(1+K) evaluations are one call of the net, which makes their
logits as it always does. Pairs, and which labels are dropped, come from torch's generator, pairs from the
local minibatch.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mclr_fast.objectives import CCA, CCDPO, DDO, MCLR, pair_labels

from .frozen_reference import unwrapped
from .kept_reference import KeptReference, LossState
from .samples import TokenSamples


class TableRows(NamedTuple):
    """What the net is called with, row by row: labels int64 [N,R]; inputs [N,R,L - p_0^2,Cv]; tokens [N,R,L].

    Column 0 is the positive. What a row shares is expanded, not copied.
    """

    labels: Tensor
    inputs: Tensor
    tokens: Tensor

    def dropped(self, masked_N: Tensor, num_classes: int) -> TableRows:
        """The same without the labels of the rows that are masked."""
        return self._replace(labels=torch.where(masked_N[:, None], num_classes, self.labels))


@dataclass(eq=False)
class ContrastLoss(LossState, ABC):
    """What the losses share: pairs, one call of the net, energies, an objective.

    Args:
        num_negatives: K; a step holds 1+K times as many evaluations as images, so the images a GPU holds
            at once have to be fewer by that factor.
        pairing: what a negative is. "labels": a wrong label of the minibatch on the row's image, drawn;
            "rolled": the next images' labels, as in CCA's release, be they the own one or not; "images":
            another class's image under the row's label.
    """

    pairings: ClassVar[tuple[str, ...]] = ("labels", "rolled", "images")

    num_negatives: int = field(default=1, kw_only=True)
    pairing: str = field(default="labels", kw_only=True)

    def __post_init__(self):
        self.objective()  # refuses settings out of range
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {self.num_negatives}.")
        if self.pairing not in self.pairings:
            raise ValueError(f"pairing must be one of {', '.join(self.pairings)}, not {self.pairing!r}.")

    @abstractmethod
    def objective(self) -> MCLR | CCDPO | CCA | DDO:
        """The function on the table of energies, from the settings."""

    def losses(self, net: nn.Module, rows: TableRows) -> Tensor:
        """Loss of each row, float32 [N]."""
        reference_NR = self.reference_energies(net, rows)
        return self.objective()(energies(net, rows), reference_NR).loss_N

    def reference_energies(self, net: nn.Module, rows: TableRows) -> Tensor | None:
        """Energies [N,R] of the frozen reference; None where none is needed."""
        return None

    def __call__(self, net: nn.Module, labels: Tensor, x_BLCv_wo_first_l: Tensor, tokens: Tensor) -> Tensor:
        """Loss of each image.

        Shapes    labels: int64 [N]; x_BLCv_wo_first_l: [N, L - p_0^2, Cv], as the net takes it; tokens:
                  int64 [N,L], of all scales -> float32 [N].
        Network   net(labels, x_BLCv_wo_first_l) -> logits [M,L,V], bare or inside DistributedDataParallel;
                  called once, with M = N(1+K), in the mode it is in. It drops no labels meanwhile.
        Errors    ValueError for labels or tokens that the net does not have, of another shape or dtype, or
                  an image without negatives here.
        """
        check(net, labels, x_BLCv_wo_first_l, tokens)
        return self.losses(net, self.columns(net, labels, x_BLCv_wo_first_l, tokens))

    def columns(self, net: nn.Module, labels: Tensor, inputs: Tensor, tokens: Tensor) -> TableRows:
        """The rows of the table, by `pairing`."""
        num_columns = 1 + self.num_negatives
        if self.pairing == "images":
            index = pair_labels(labels, self.num_negatives)
            index = torch.cat([torch.arange(len(labels), device=labels.device)[:, None], index], dim=1)
            return TableRows(labels[:, None].expand(-1, num_columns), inputs[index], tokens[index])
        if self.pairing == "labels":
            negative = labels[pair_labels(labels, self.num_negatives)]
        else:
            negative = torch.stack([labels.roll(-k) for k in range(1, num_columns)], dim=1)
        return TableRows(
            torch.cat([labels[:, None], negative], dim=1),
            inputs[:, None].expand(-1, num_columns, -1, -1),
            tokens[:, None].expand(-1, num_columns, -1),
        )

    def state_dict(self) -> dict:
        """The state, by the name that trainers ask for."""
        return self.__getstate__()

    def load_state_dict(self, state: dict, strict: bool = True) -> None:
        """Restore, as `__setstate__`; `strict` changes nothing."""
        self.__setstate__(state)


@dataclass(eq=False)
class MCLRLoss(ContrastLoss):
    """MCLR, eq. 22 with exact likelihoods. Args: dsm_weight: share of the own -log p; as `ContrastLoss`."""

    dsm_weight: float = 0.0

    def objective(self) -> MCLR:
        """Eq. 22 or 160."""
        return MCLR(self.dsm_weight)


@dataclass(eq=False)
class ReferenceLoss(KeptReference, ContrastLoss):
    """A loss that compares with a frozen reference, in eval mode: no branch of it is dropped.

    (CCA's release has its reference in training mode, with drop path.) It is kept in the precision that it
    is in: at the first step policy and reference agree to the bit where the net drops no branch either.
    """

    def reference_energies(self, net: nn.Module, rows: TableRows) -> Tensor:
        """Energies [N,R] of the reference, without gradients, on the same evaluations."""
        with torch.no_grad():
            return energies(self.frozen_network(net), rows)


@dataclass(eq=False)
class CCDPOLoss(ReferenceLoss):
    """CC-DPO, eq. 19: other images under the row's label; with pairing "rolled", DPO of CCA's release.

    Args: beta > 0; the rest as `ContrastLoss` and `KeptReference`.
    """

    beta: float
    reference: str | None = None
    pairing: str = field(default="images", kw_only=True)

    def objective(self) -> CCDPO:
        """Eq. 19."""
        return CCDPO(self.beta)


@dataclass(eq=False)
class CCALoss(ReferenceLoss):
    """CCA, eq. 159. With pairing "rolled", as in its release.

    Args: beta, lambda_ > 0; uncond_ratio: how often an image's labels are all dropped, in [0, 1): then its
    negatives are positives too, and so is one whose rolled label is the own (`CCA.with_matched`); the rest
    as `ContrastLoss` and `KeptReference`.
    """

    beta: float
    lambda_: float
    reference: str | None = None
    uncond_ratio: float = field(default=0.0, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.uncond_ratio < 1:
            raise ValueError(f"uncond_ratio must be at least 0 and below 1, not {self.uncond_ratio}.")

    def objective(self) -> CCA:
        """Eq. 159."""
        return CCA(self.beta, self.lambda_)

    def losses(self, net: nn.Module, rows: TableRows) -> Tensor:
        """As `ContrastLoss.losses`; with labels dropped where uncond_ratio says so."""
        if self.uncond_ratio == 0:
            return super().losses(net, rows)
        masked = torch.rand(len(rows.labels), device=rows.labels.device) < self.uncond_ratio
        matched = masked[:, None].expand(-1, self.num_negatives)
        if self.pairing == "rolled":
            matched = matched | (rows.labels[:, 1:] == rows.labels[:, :1])
        rows = rows.dropped(masked, num_classes(net))
        reference_NR = self.reference_energies(net, rows)
        return self.objective().with_matched(energies(net, rows), reference_NR, matched)


@dataclass(eq=False)
class DDOLoss(ReferenceLoss):
    """DDO: CCA's form against the reference's own samples of the row's class.

    Args: beta, alpha > 0; negatives: tokens of samples of every class, as `prepare --tokens` stores them (a
    zip or a folder); vqvae: what they are tokens of, a folder of ours, a .pth or a published name; None:
    VAR's own; the rest as `ContrastLoss` and `KeptReference`.
    """

    pairings: ClassVar[tuple[str, ...]] = ("samples",)

    beta: float
    alpha: float
    negatives: str
    vqvae: str | None = None
    reference: str | None = None
    pairing: str = field(default="samples", init=False, repr=False)

    _samples = None  # opened when it is needed
    _fits = False

    def __post_init__(self):
        super().__post_init__()
        self.negatives = os.fspath(self.negatives)
        self.vqvae = None if self.vqvae is None else os.fspath(self.vqvae)
        self._samples = TokenSamples(self.negatives)

    def objective(self) -> DDO:
        """CCA's form, alpha for lambda."""
        return DDO(self.beta, self.alpha)

    def columns(self, net: nn.Module, labels: Tensor, inputs: Tensor, tokens: Tensor) -> TableRows:
        """Rows of the table: the image, and samples of its class, under the row's label."""
        drawn = self._samples_for(net).draw(labels, self.num_negatives, num_classes(net), tokens)
        others = self._samples.inputs(drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2])
        return TableRows(
            labels[:, None].expand(-1, 1 + self.num_negatives),
            torch.cat([inputs[:, None], others.to(inputs)], dim=1),
            torch.cat([tokens[:, None], drawn], dim=1),
        )

    def _samples_for(self, net: nn.Module) -> TokenSamples:
        """The samples, once it is seen that they go with the net."""
        if self._samples is None:  # restored
            self._samples = TokenSamples(self.negatives)
        if not self._fits:
            own = unwrapped(net)
            self._samples.fit(sides(net), len(own.head.weight), own.word_embed.weight.shape[1], self.vqvae)
            self._fits = True
        return self._samples


def energies(net: nn.Module, rows: TableRows) -> Tensor:
    """-log p of a table's tokens, summed over an image's, float32 [N,R]; gradient to the net's parameters."""
    labels, inputs, tokens = (part.flatten(0, 1) for part in rows)
    with no_labels_dropped(net):
        logits = net(labels, inputs)
    nll = cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
    return nll.view(rows.tokens.shape).sum(dim=2)


@contextmanager
def no_labels_dropped(net: nn.Module) -> Iterator[None]:
    """Their net drops labels at random in every call, in eval mode too: not here."""
    net = unwrapped(net)
    rate = getattr(net, "cond_drop_rate", None)
    if rate is None:
        yield
        return
    net.cond_drop_rate = 0.0
    try:
        yield
    finally:
        net.cond_drop_rate = rate


def num_classes(net: nn.Module) -> int:
    """How many classes the net has; that number, as a label, is none."""
    return len(unwrapped(net).class_emb.weight) - 1


def sides(net: nn.Module) -> list[int]:
    """Side of each scale's token map, coarsest first."""
    levels = unwrapped(net).lvl_1L[0]
    return [round(count**0.5) for count in levels.bincount().tolist()]


def check(net: nn.Module, labels: Tensor, inputs: Tensor, tokens: Tensor) -> None:
    """ValueError for what the losses cannot be called with."""
    own = unwrapped(net)
    missing = [name for name in ("class_emb", "pos_1LC", "head") if not hasattr(own, name)]
    if missing:
        raise ValueError(
            f"the net, a {type(own).__name__}, has no {missing[0]!r}: these losses are for VAR's "
            "transformer, bare, inside DistributedDataParallel or compiled."
        )
    for name, given, ndim in (("labels", labels, 1), ("tokens", tokens, 2)):
        if not isinstance(given, Tensor) or given.ndim != ndim or given.dtype != torch.int64:
            seen = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            mend = " (a list of scales: torch.cat(tokens, dim=1))" if isinstance(given, list | tuple) else ""
            raise ValueError(f"{name} must be int64 {['[N]', '[N,L]'][ndim - 1]}, not {seen}{mend}.")
    if not len(labels) == len(inputs) == len(tokens) or len(labels) == 0:
        raise ValueError(
            f"labels, x_BLCv_wo_first_l and tokens are of {len(labels)}, {len(inputs)} and {len(tokens)} "
            "images: give as many of each, and one at least."
        )
    length = own.pos_1LC.shape[1]
    if tokens.shape[1] != length:
        raise ValueError(f"tokens are {tokens.shape[1]} an image; the net's scales have {length} in all.")
    for name, given, count in (
        ("labels", labels, num_classes(net)),
        ("tokens", tokens, len(own.head.weight)),
    ):
        low, high = given.aminmax()  # SYNC: on a GPU one out of range would end the process
        if low < 0 or high >= count:
            raise ValueError(f"{name} lie in [{low}, {high}]; this net knows 0 to {count - 1}.")
