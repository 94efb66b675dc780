"""Judges as options ask for them: of a run's rows, of a saved model, of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mclr_fast.config import JudgeConfig, RunConfig
from mclr_fast.data import Dataset
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.evaluation.image_sets import open_images
from mclr_fast.evaluation.judge import Judge, Panel
from mclr_fast.evaluation.protocols import PROTOCOLS, is_trained, own_data, protocol_names
from mclr_fast.models import Model, load
from mclr_fast.runtime.device.precision import name_of
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from .checks import GREY_OR_RGB
from .identity.claim import whole_of
from .ready_model import check_guide, classes_of_seeds, decoder_of, image_shape

DEFAULT_K = 3  # of the protocols that leave it to an option


def panel_of(
    names: Sequence[str],
    config: JudgeConfig,
    *,
    data: str | None = None,
    heldout: str | None = None,
    neighbors: int | None = None,
    folder: Path | None = None,
) -> Panel:
    """Who judges, as options say it. RunError for mistakes.

    Args: data: real images to compare with after --ref; folder: a run's.
    """
    if own := own_data(names):
        if config.ref or heldout or data not in (None, own):
            raise RunError(
                f"{names[0]} compares with its own digits: other data or another --ref need another "
                "--protocol (fid, fd-dinov2, ...), or a recipe of own images (images-base, images)."
            )
        return Panel(names, (own,), open_images(own, "heldout"), neighbors=neighbors)
    if neighbors not in (None, DEFAULT_K):
        raise RunError(f"--neighbors does nothing here: {', '.join(names)} have their own.")
    best_by = config.best_by
    if best_by is not None and not (best_by in names and PROTOCOLS[best_by].measures_fd):
        raise RunError(f"--best-by {best_by} is none of --protocol {','.join(names)} that measures FD.")
    return Panel(
        names,
        (*config.ref, *([data] if data else [])),
        open_images(heldout) if heldout else None,
        weights_of(config),
        config.download,
        best_by,
        folder=folder,
    )


def run_panel(config: RunConfig, dataset: Dataset) -> Panel:
    """Who judges a run's rows. RunError, ValueError or OSError for mistakes."""
    names, options = judging_protocols(config), config.eval
    panel = panel_of(
        names,
        options,
        data=config.data if _is_image(dataset) else None,
        heldout=options.heldout,
        neighbors=options.neighbors,
        folder=whole_of(config.folder),
    )
    if is_trained(names):
        check_sees_images(config, dataset)
    return panel


def run_guide(config: RunConfig, model: Model) -> Model | None:
    """The network that guides a run's rows, described; None where each guides itself. Errors as above."""
    if not config.eval.gnet:
        return None
    return check_guide(config.eval.gnet, config.init or "the network", model)


def weights_of(config: JudgeConfig) -> dict[str, Path | None]:
    """Of each extractor, as the options say."""
    return {"inception": config.inception_weights, "dinov2": config.dinov2_weights}


class Judging:
    """The judges of a run's rows; nothing is loaded before they are asked for.

    All ranks call its methods.
    """

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        dataset: Dataset,
        dtype: torch.dtype,
        ranks: Ranks,
        stop: StopRequest,
    ):
        """Checks what needs no loading; dtype: of the networks. RunError, ValueError or OSError."""
        self.config, self.model, self.dtype, self.ranks, self.stop = config, model, dtype, ranks, stop
        self.names = judging_protocols(config)
        self.panel = run_panel(config, dataset)
        if is_trained(self.names):
            ranks.on_main(lambda: self.panel.plan and None)  # says what cannot be trained on
        self.called = config.init or "the network"
        self._guided_by: dict[str, Any] | None = None
        if guide := run_guide(config, model):
            self._guided_by = {"model": config.eval.gnet, "num_classes": guide.facts.num_classes}
        self._codec = model.codec(dataset)
        self._judge: Judge | None = None
        self._guide: nn.Module | None = None

    @property
    def can_guide(self) -> bool:
        """Whether there is something that guides: of a model that tells nothing of itself it is believed."""
        tells = self.model.said.keys() & {"made_by", "source", "licence"}
        return self.config.eval.gnet is not None or self.model.null_label or not tells

    def evaluator(self, seeds: range, folder: Path) -> Evaluator:
        """What judges samples of these seeds, and keeps its evaluations in a folder."""
        if self._judge is None:
            shape = image_shape(self._decode, self.model, self.ranks.device)
            size = self.config.eval.sample_batch
            self._judge = Judge.of(self.panel, len(seeds), shape, size, self.ranks, self.stop)
        return Evaluator(
            judge=self._judge,
            config=self.config.eval,
            seeds=seeds,
            labels=torch.tensor(classes_of_seeds(self.model, seeds, self.ranks)),
            classes=self.model.classes.trained,
            model=self.model,
            decode=self._decode,
            folder=folder,
            objective=self.config.objective.objective,
            ranks=self.ranks,
            stop=self.stop,
            guide=self._guiding if self.config.eval.gnet else None,
            guided_by=self._guided_by,
        )

    @property
    def seeds(self) -> range:
        """Of the samples of every row."""
        first = self.config.eval.first_seed
        return range(first, first + self.config.eval.num_samples)

    @property
    def final_seeds(self) -> range:
        """Of the final rows' samples: those after, which chose nothing; empty where none are wanted."""
        return range(self.seeds.stop, self.seeds.stop + self.config.eval.final_samples)

    def said(self) -> dict[str, Any]:
        """How its models are judged, for their config.json: `evaluate` takes that unless told otherwise.

        How they are sampled is said there anyway.
        """
        options, seeds = self.config.eval, self.final_seeds or self.seeds
        counts = {"num_samples": len(seeds), "first_seed": seeds.start}
        own = own_data(self.names)
        sources = {} if own else {"ref": [_absolute(source) for source in self.panel.sources]}
        optional = {name: getattr(options, name) for name in ("best_by", "vae", "gnet")}
        optional |= {"neighbors": options.neighbors} if own else {}
        if is_trained(self.names) and options.heldout:
            optional["heldout"] = _absolute(options.heldout)
        said = {"protocol": self.config.protocol, **counts, **sources, "precision": name_of(self.dtype)}
        return said | {name: value for name, value in optional.items() if value is not None}

    def release_guide(self) -> None:
        """Let go of the network that guides, until it is wanted again."""
        self._guide = None

    @cached_property
    def _decode(self) -> Callable[[Tensor], Tensor]:
        return decoder_of(self._codec, self.config.eval.vae, self.ranks.device, self.called)

    def _guiding(self) -> nn.Module:
        if self._guide is None:
            self._guide = load(self.config.eval.gnet, dtype=self.dtype).to(self.ranks.device)
        return self._guide


def check_sees_images(config: RunConfig, dataset: Dataset) -> None:
    """RunError where protocol classifier would have latents or tokens to see."""
    if not config.eval.ref and not _is_image(dataset):
        what = "tokens" if len(dataset.image_shape) == 1 else "VAE latents"
        raise RunError(
            f"--data {config.data} holds {what}, and protocol classifier sees images: name those that they "
            "were made of with --ref."
        )


def _is_image(dataset: Dataset) -> bool:
    return len(dataset.image_shape) == 3 and dataset.image_shape[0] in GREY_OR_RGB


def _absolute(source: str) -> str:
    """A local path from the root; a published name or an address as it is."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def judging_protocols(config: RunConfig) -> list[str]:
    """The protocols of a run. RunError for those that cannot choose its best model."""
    names = protocol_names(config.protocol)
    if not any(PROTOCOLS[name].measures_fd for name in names):
        raise RunError(
            f"--protocol {config.protocol}: a run chooses its best model by an FD: add fid or fd-dinov2."
        )
    return names
