"""What an objective needs beside the trained network: checked early, made once, kept in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mclr_fast.config import RunConfig
from mclr_fast.data import Codec, Dataset
from mclr_fast.data.samples import ClassSamples
from mclr_fast.models import Model, load
from mclr_fast.models.family import Frozen
from mclr_fast.models.noisy_classifier import NoisyClassifier
from mclr_fast.runtime.device.precision import choose_dtype
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.sampling.noise_level import NoiseLevel

from .columns import SampleSources
from .model_samples import open_samples, write_samples
from .need_checks import SOURCES, NeedChecks
from .own_energies import images_at_once, keeps_own_energies, own_energies
from .ratio import best_samples, data_classifier
from .registry import Method, Needs, make_method

# Sampling seeds of the reference's and of another model's samples. Those of evaluations and proofs, which
# no sample that is trained on may share, are below 2^31.
REFERENCE_SEED, NEGATIVES_SEED = 2**31, 2**31 + 2**30


@dataclass
class NeedMaker:
    """Makes what one run's objective needs beside the network.

    Args: description: the trained network's config.json.
    Attributes: quality, how good the classifier is on held-out images, once there is one.
    """

    config: RunConfig
    description: dict[str, Any]
    dataset: Dataset
    ranks: Ranks
    stop: StopRequest
    quality: dict[str, Any] | None = None

    def __post_init__(self):
        """ValueError or RunError for whatever can be known to be wrong before anything is made."""
        options = self.config.objective
        self.model = Model.of(self.description)
        self.method: Method = make_method(options)
        self.reference_path = options.reference or self.config.init
        NeedChecks(self.config, self.description, self.dataset).check()
        if options.reference is not None and (self.method.needs_reference or self.method.uses_samples):
            self._load(options.reference)  # a damaged file is better found now
        self.classifier_path = options.classifier or self.config.folder / "classifier.safetensors"

    def make(self, reference_path: str | Path | None = None, round_number: int = 0) -> Needs:
        """All of it; in later rounds of another reference, whose samples are that round's."""
        path = str(reference_path or self.reference_path)
        family, method = self.model.family, self.method
        reference = family.frozen(self._load(path)) if method.needs_reference else None
        samples = self._samples(path, round_number) if method.uses_samples else SampleSources()
        ratio = self._classifier().ratio if method.needs_ratio else None
        keeps = keeps_own_energies(self.config, method, family, len(self.dataset))
        return Needs(reference, samples, ratio, self._own_energies(path, reference) if keeps else None)

    def _own_energies(self, path: str, reference: Frozen) -> Tensor:
        size = images_at_once(self.config.train, self.ranks.size)
        places = (self.config.folder, reference, path, self.dataset, self._codec)
        return own_energies(*places, size, self.ranks, self.stop)

    def _load(self, path: str) -> nn.Module:
        train, device = self.config.train, self.ranks.device
        return load(path, dtype=choose_dtype(train.precision, device), dropout=train.dropout).to(device)

    def _open(self, path: Path | str, option: str) -> Dataset:
        return open_samples(path, option, self.dataset, self.model.facts.num_classes)

    def _samples(self, reference_path: str, round_number: int) -> SampleSources:
        plus = self._positives(reference_path, round_number) if self.method.chooses_positives else None
        return SampleSources(plus, ClassSamples(self._negatives(reference_path, round_number)))

    def _positives(self, reference_path: str, round_number: int) -> ClassSamples | None:
        options = self.config.objective
        if options.positives == "data":
            return None
        if options.positives not in SOURCES:
            return ClassSamples(self._open(options.positives, "--positives"))
        base = self._reference_samples(reference_path, round_number)
        if options.positives == "base":
            return ClassSamples(base)
        noise = self._noise
        lowest = float(np.exp(noise.P_mean - 2 * noise.P_std))
        device = self.ranks.device
        return ClassSamples(
            base,
            best_samples(
                self._classifier(), base, self._codec, options.best_share, lowest, self.config.seed, device
            ),
        )

    def _negatives(self, reference_path: str, round_number: int) -> Dataset:
        options = self.config.objective
        if round_number > 0 or (options.negatives is None and options.negatives_model is None):
            return self._reference_samples(reference_path, round_number)
        path = options.negatives or self.config.folder / "samples" / "negatives.zip"
        return self._made(path, options.negatives_model or reference_path, NEGATIVES_SEED)

    def _reference_samples(self, reference_path: str, round_number: int) -> Dataset:
        path = self.config.folder / "samples" / f"reference-{round_number}.zip"
        first_seed = REFERENCE_SEED + round_number * self.config.objective.model_samples
        return self._made(path, reference_path, first_seed)

    def _made(self, path: Path, model_path: str, first_seed: int) -> Dataset:
        """The samples at `path`, made there by the model if they are missing."""
        if not self.ranks.on_main(path.exists):
            num_samples = self.config.objective.model_samples
            say(self.ranks.is_main, f"making {num_samples:,} samples of {model_path}: {path}")
            options = self.config.eval
            sampler = self.model.sampler(self._load(model_path), options)
            made = (num_samples, first_seed, self.dataset, self._codec, options.sample_batch)
            write_samples(path, sampler, *made, self.ranks, self.stop)
        return self._open(path, "--negatives")

    @property
    def _codec(self) -> Codec:
        return self.model.codec(self.dataset)

    @property
    def _noise(self) -> NoiseLevel:
        return self.model.law(self.config.objective).noise

    def _classifier(self) -> NoisyClassifier:
        classifier, self.quality = data_classifier(
            self.classifier_path,
            self.config.objective,
            self.dataset,
            self._codec,
            self._noise,
            self.config.seed,
            self.ranks,
        )
        return classifier
