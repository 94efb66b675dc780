"""Whether the models, samples and classifier that an objective is pointed to fit, seen before any is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.models import Model, read_config
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.tensor_files import load_tensors

from .model_samples import open_samples
from .registry import make_method

SOURCES = ("data", "base", "best")  # of p+; anything else is a path


@dataclass(frozen=True)
class NeedChecks:
    """What can be known of a run's needs without making or loading any.

    Args:
        description: the trained network's config.json.
        dataset: the data; None, in a dry run without --data, leaves out what they are compared with.
    """

    config: RunConfig
    description: dict[str, Any]
    dataset: Dataset | None

    def check(self) -> None:
        """ValueError, OSError or RunError for whatever headers show to be wrong."""
        options, method = self.config.objective, make_method(self.config.objective)
        family = self.description["family"]
        for need in sorted(method.requires - self.model.family.gives):
            raise RunError(
                f"--objective {options.objective} needs a {need}, which {family} models do not give: choose "
                "another objective."
            )
        reference = options.reference or self.config.init
        if reference is not None and (method.needs_reference or method.uses_samples):
            self._check_model(reference, "--reference", whole=method.needs_reference)
        if method.uses_samples:
            self._check_samples()
        if method.chooses_positives:
            self._check_positives()
        if options.classifier is not None and options.classifier.exists():
            self._check_classifier(options.classifier)

    @property
    def model(self) -> Model:
        """The trained network, described."""
        return Model.of(self.description)

    def _check_model(self, path: str, option: str, *, whole: bool = False) -> None:
        """The model must make the trained network's images and classes, or (whole) be of its architecture."""
        description = read_config(path)
        name, own_name = description.get("family"), self.description["family"]
        if name != own_name:
            raise RunError(
                f"{option} {path} is of another family: {name}, the trained network's {own_name}. Choose "
                "another model."
            )
        family = self.model.family
        net, own = (family.complete(said["net"]) for said in (description, self.description))
        for name in own if whole else family.image_arguments:
            if net.get(name) != own[name]:
                kind = "is of another architecture" if whole else "makes other images or classes"
                raise RunError(
                    f"{option} {path} {kind}: its {name} is {net.get(name)}, the trained network's "
                    f"{own[name]}. Choose another model."
                )

    def _check_samples(self) -> None:
        options = self.config.objective
        if options.negatives is not None and options.negatives.exists():
            self._check_images(options.negatives, "--negatives")
        elif options.negatives is not None and options.negatives.suffix != ".zip":
            raise RunError(
                f"--negatives {options.negatives} does not exist; to have it made, name a file that ends in "
                ".zip."
            )
        if options.negatives_model is not None:
            self._check_model(options.negatives_model, "--negatives-model")
        if self.dataset is not None and options.model_samples < self.dataset.num_classes:
            raise RunError(
                f"--model-samples {options.model_samples} leaves some of {self.dataset.num_classes} classes "
                "without a sample: raise it."
            )

    def _check_positives(self) -> None:
        options = self.config.objective
        if options.positives not in SOURCES:
            self._check_images(options.positives, "--positives")
        if not 0 < options.best_share <= 1:
            raise RunError(f"--best-share must be above 0 and at most 1, not {options.best_share}.")

    def _check_images(self, path: Path | str, option: str) -> None:
        if self.dataset is not None:
            open_samples(path, option, self.dataset, self.model.facts.num_classes)

    def _check_classifier(self, path: Path) -> None:
        _, meta = load_tensors(path)
        if self.dataset is None:
            return
        seen = (meta or {}).get("arguments", {})
        wanted = {
            "image_shape": list(self.model.codec(self.dataset).shape),
            "classes": self.dataset.num_classes,
            "P_mean": self.config.objective.P_mean,
            "P_std": self.config.objective.P_std,
        }
        seen = {**seen, "classes": len(seen.get("class_probs", ()))}
        for name, value in wanted.items():
            if seen.get(name) != value:
                raise RunError(
                    f"--classifier {path} was trained for something else: its {name} is {seen.get(name)}, "
                    f"this run's {value}. Name another file, or one that is still to be made."
                )
