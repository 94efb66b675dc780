"""One table: from an objective's name to its formula, its columns, its loss and what else it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mclr_fast.config import ObjectiveConfig
from mclr_fast.models import Family
from mclr_fast.models.family import Frozen
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
from mclr_fast.objectives.protocols import Compared, Linear, Objective, ReplacedTarget

from . import columns
from .columns import Columns, SampleSources
from .losses import ComparedLoss, LinearLoss, Loss, OwnLoss, Ratio, ReplacedTargetLoss


@dataclass(frozen=True)
class Needs:
    """What an objective needs beside the network it trains; `Method` says which.

    own_energies: the reference's of the data's images under their own labels, float32 on the CPU, where they
    are kept.
    """

    reference: Frozen | None = None
    samples: SampleSources = field(default_factory=SampleSources)
    ratio: Ratio | None = None
    own_energies: Tensor | None = None


LossMaker = Callable[[Family, Objective, Needs], Loss]


def _linear(family: Family, objective: Linear, needs: Needs) -> Loss:
    return LinearLoss(family, objective, needs.ratio)


def _compared(family: Family, objective: Compared, needs: Needs) -> Loss:
    return ComparedLoss(family, objective, needs.reference)


def _replaced_target(family: Family, objective: ReplacedTarget, needs: Needs) -> Loss:
    return ReplacedTargetLoss(family, objective)


def _own(family: Family, objective: Objective, needs: Needs) -> Loss:
    return OwnLoss(family)


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        formula: the objective's class; settings: option -> parameter of its constructor.
        columns: what a row's columns are, or by which option that is chosen.
        loss: how a micro-batch is scored.
        unset: what options are that default to None.
        needs: of "reference" (it compares with a frozen network), "ratio" (it weighs its negatives),
            "samples" (columns are samples of a model) and "positives" (so may the positives be).
        words: what is evaluated without gradients beside the columns.
    """

    formula: Callable[..., Objective]
    settings: Mapping[str, str]
    columns: Columns | tuple[str, Mapping[Any, Columns]]
    loss: LossMaker
    unset: Mapping[str, float] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    words: str = ""

    def value(self, options: ObjectiveConfig, option: str) -> Any:
        """An option's value, or what it is where it was not given."""
        value = getattr(options, option)
        return self.unset.get(option) if value is None else value

    @property
    def trains_own_loss(self) -> bool:
        """Whether it trains with what the family's bases are trained with."""
        return self.loss is _own

    @property
    def options(self) -> set[str]:
        """The options that it reads: of its formula, its columns and what it needs."""
        used = {"objective", "P_mean", "P_std", *self.settings, *self.unset}
        chosen = self.columns if isinstance(self.columns, Columns) else next(iter(self.columns[1].values()))
        used |= {"num_negatives"} if chosen.has_negatives else set()
        used |= {"include_own"} if chosen.labels else set()
        for need in self.needs:
            used |= OPTIONS_OF_NEEDS[need]
        return used


OPTIONS_OF_NEEDS = {
    "reference": {"reference", "refresh_every"},
    "samples": {"reference", "refresh_every", "negatives", "negatives_model", "model_samples"},
    "positives": {"positives", "best_share", "classifier", "classifier_steps"},
    "ratio": {"classifier", "classifier_steps"},
}


@dataclass(frozen=True)
class Method:
    """How an objective trains, once its options are known.

    Attributes: objective: the formula, its settings checked; columns: what a row's columns are;
    label_dropout: how often a row is without its labels; entry: its line of the table.
    """

    objective: Objective
    columns: Columns
    label_dropout: float
    entry: Entry

    @property
    def needs_reference(self) -> bool:
        """It compares with a frozen network."""
        return "reference" in self.entry.needs

    @property
    def needs_ratio(self) -> bool:
        """It weighs its negatives."""
        return "ratio" in self.entry.needs

    @property
    def uses_samples(self) -> bool:
        """Columns are samples of a model."""
        return "samples" in self.entry.needs

    @property
    def chooses_positives(self) -> bool:
        """The positives may be samples of a model too."""
        return "positives" in self.entry.needs

    @property
    def positives_are_own(self) -> bool:
        """Column 0 is always an image of the data under its own label."""
        return self.label_dropout == 0 and not self.chooses_positives

    @property
    def requires(self) -> set[str]:
        """What a family must give."""
        return {self.objective.needs} | ({"noise"} if self.needs_ratio else set())

    @property
    def separable(self) -> bool:
        """Whether a row may be cut by columns."""
        return self.objective.separable

    def loss(self, family: Family, needs: Needs) -> Loss:
        """How its micro-batches are scored."""
        return self.entry.loss(family, self.objective, needs)


BETA = {"beta": "beta"}
ETA = {"eta": "eta"}
PULL = {"beta": 0.02}
REFERENCE = "and as many of the reference"
NO_LABEL = "and as many without a label"
METHODS: dict[str, Entry] = {
    "mclr": Entry(
        MCLR,
        {"dsm_weight": "dsm_weight", "form": "form"},
        ("form", {1: columns.other_labels, 2: columns.other_images}),
        _linear,
    ),
    "kl-mclr": Entry(KLMCLR, ETA, columns.labels_and_sample, _linear, needs=frozenset({"samples"})),
    "weighted-mclr": Entry(WeightedMCLR, ETA, columns.any_labels, _linear, needs=frozenset({"ratio"})),
    "plus-minus": Entry(
        PlusMinus, ETA, columns.class_samples, _linear, needs=frozenset({"samples", "positives"})
    ),
    "ccdpo": Entry(
        CCDPO, BETA, columns.other_images, _compared, PULL, frozenset({"reference"}), words=REFERENCE
    ),
    "cca": Entry(
        CCA,
        BETA | {"lambda_coef": "lambda_", "pairing": "pairing", "label_dropout": "label_dropout"},
        ("pairing", {"images": columns.other_images, "labels": columns.other_labels}),
        _compared,
        PULL | {"label_dropout": 0.0},
        frozenset({"reference"}),
        words=REFERENCE,
    ),
    "ddo": Entry(
        DDO,
        BETA | {"alpha": "alpha"},
        columns.class_samples,
        _compared,
        PULL,
        frozenset({"reference", "samples"}),
        words=REFERENCE,
    ),
    "gft": Entry(
        GFT, BETA, columns.own_label, _replaced_target, {"beta": 0.5, "label_dropout": 0.1}, words=NO_LABEL
    ),
    "model-guidance": Entry(
        ModelGuidance,
        {"guidance_weight": "w"},
        columns.own_label,
        _replaced_target,
        {"label_dropout": 0.1},
        words=NO_LABEL,
    ),
    "denoising": Entry(Denoising, {}, columns.own_label, _own, {"label_dropout": 0.0}),
}


def make_method(options: ObjectiveConfig) -> Method:
    """The method that the options name. SettingError for a setting out of its range."""
    entry = METHODS[options.objective]
    settings = {name: entry.value(options, option) for option, name in entry.settings.items()}
    objective, chosen = entry.formula(**settings), entry.columns
    if not isinstance(chosen, Columns):
        option, by_value = chosen
        chosen = by_value[getattr(options, option)]
    drops_labels = "label_dropout" in entry.unset
    label_dropout = entry.value(options, "label_dropout") if drops_labels else 0.0
    return Method(objective, chosen, label_dropout, entry)


def options_of(objective: str) -> set[str]:
    """The options that an objective uses."""
    return METHODS[objective].options


def option_named(objective: str, setting: str) -> str:
    """The option that a constructor's parameter is set by."""
    return next(o for o, name in METHODS[objective].settings.items() if name == setting)
