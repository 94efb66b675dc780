"""One table: from an objective's name to its formula, its columns, its loss and what else it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mclr_fast.config import ObjectiveConfig
from mclr_fast.objectives import (
    CCA,
    CCDPO,
    DDO,
    GFT,
    KLMCLR,
    MCLR,
    Denoising,
    ModelGuidance,
    PlusMinus,
    WeightedMCLR,
)

from . import columns as tuples
from .losses import ComparedLoss, ContrastLoss, DenoisingLoss, Loss, Ratio, ReplacedTargetLoss
from .reference import Reference


@dataclass(frozen=True)
class Aids:
    """What an objective needs beside the network it trains; `Method` says which."""

    reference: Reference | None = None
    samples: tuples.Samples = field(default_factory=tuples.Samples)
    ratio: Ratio | None = None


@dataclass(frozen=True)
class Method:
    """How an objective trains.

    Attributes:
        objective: the formula, its options checked.
        tuples: what a row's columns are.
        loss: made from the objective and the aids.
        label_dropout: how often `own_label` drops the label.
        needs_reference, needs_ratio: it compares with a frozen network, or weighs its negatives.
        uses_samples, chooses_positives: columns are samples of a model; the positives may be so too.
    """

    objective: Any
    tuples: tuples.Tuples
    loss: Callable[[Any, Aids], Loss]
    label_dropout: float = 0.0
    needs_reference: bool = False
    needs_ratio: bool = False
    uses_samples: bool = False
    chooses_positives: bool = False

    @property
    def beside(self) -> str:
        """What is evaluated without gradients beside the columns, in words."""
        if self.needs_reference:
            return ", and as many of the reference"
        return ", and as many without a label" if isinstance(self.objective, GFT | ModelGuidance) else ""

    @property
    def options(self) -> set[str]:
        """The options that its columns and aids read, beside those that its formula is made of."""
        used = {"objective", "P_mean", "P_std"}
        if self.tuples is not tuples.own_label:
            used.add("num_negatives")
        if self.tuples in (*tuples.PAIRED, tuples.any_labels):
            used.add("include_own")
        if self.needs_reference or self.uses_samples:
            used |= {"reference", "refresh_every"}
        if self.uses_samples:
            used |= {"negatives", "negatives_model", "model_samples"}
        if self.chooses_positives:
            used |= {"positives", "best_share"}
        if self.needs_ratio or self.chooses_positives:
            used |= {"classifier", "classifier_steps"}
        return used

    @property
    def separable(self) -> bool:
        """Whether a row may be cut by columns."""
        return getattr(self.objective, "separable", True)


def _contrast(objective: Any, aids: Aids) -> Loss:
    return ContrastLoss(objective, aids.ratio)


def _compared(objective: Any, aids: Aids) -> Loss:
    return ComparedLoss(objective, aids.reference)


def _alone(loss: Callable[[Any], Loss]) -> Callable[[Any, Aids], Loss]:
    return lambda objective, aids: loss(objective)


def _compares(objective: Any, columns: tuples.Tuples, **needs: bool) -> Method:
    return Method(objective, columns, _compared, needs_reference=True, **needs)


def _replaces_target(objective: Any, options: ObjectiveConfig) -> Method:
    return Method(objective, tuples.own_label, _alone(ReplacedTargetLoss), _dropout(options, 0.1))


def _dropout(options: ObjectiveConfig, default: float) -> float:
    return default if options.label_dropout is None else options.label_dropout


def _beta(options: ObjectiveConfig, default: float) -> float:
    return default if options.beta is None else options.beta


BY_FORM = {1: tuples.other_labels, 2: tuples.other_images}
BY_PAIRING = {"labels": tuples.other_labels, "images": tuples.other_images}
METHODS: dict[str, Callable[[ObjectiveConfig], Method]] = {
    "mclr": lambda o: Method(MCLR(o.dsm_weight, o.form), BY_FORM[o.form], _contrast),
    "kl-mclr": lambda o: Method(KLMCLR(o.eta), tuples.labels_and_sample, _contrast, uses_samples=True),
    "weighted-mclr": lambda o: Method(WeightedMCLR(o.eta), tuples.any_labels, _contrast, needs_ratio=True),
    "plus-minus": lambda o: Method(
        PlusMinus(o.eta), tuples.class_samples, _contrast, uses_samples=True, chooses_positives=True
    ),
    "ccdpo": lambda o: _compares(CCDPO(_beta(o, 0.02)), tuples.other_images),
    "cca": lambda o: _compares(CCA(_beta(o, 0.02), o.lambda_coef, o.pairing), BY_PAIRING[o.pairing]),
    "ddo": lambda o: _compares(DDO(_beta(o, 0.02), o.alpha), tuples.class_samples, uses_samples=True),
    "gft": lambda o: _replaces_target(GFT(_beta(o, 0.5)), o),
    "model-guidance": lambda o: _replaces_target(ModelGuidance(o.guidance_weight), o),
    "denoising": lambda o: Method(Denoising(), tuples.own_label, _alone(DenoisingLoss), _dropout(o, 0.0)),
}

# Settings whose options have other names: lambda is a word of Python's, and w says little by itself.
RENAMED = {"lambda_": "lambda_coef", "w": "guidance_weight"}


def make_method(options: ObjectiveConfig) -> Method:
    """The method that the options name. ValueError for a setting out of its range."""
    return METHODS[options.objective](options)


def options_of(objective: str) -> set[str]:
    """The options that an objective uses: those that its line of the table reads, and `Method.options`."""
    reads = _Reads()
    return METHODS[objective](reads).options | reads.names


class _Reads:
    """The default options, noting which are read."""

    def __init__(self):
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(ObjectiveConfig(), name)
