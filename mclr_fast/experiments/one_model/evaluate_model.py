"""Rows of the table for one saved model, or for images at hand."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mclr_fast.config import EvaluateConfig
from mclr_fast.evaluation.evaluator import seen_in_samples
from mclr_fast.evaluation.image_sets import open_images
from mclr_fast.evaluation.judge import Judge, Panel
from mclr_fast.evaluation.protocols import EMBEDDED, is_trained, own_data, protocol_names
from mclr_fast.evaluation.references import save_reference
from mclr_fast.evaluation.rows import Kind, Row
from mclr_fast.models import Model, read_config
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import Check, option_of
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.sampling.generate import generate

from ..judging import DEFAULT_K, panel_of, weights_of
from ..ranges import MAX_SAMPLES, check_neighbors
from ..ready_model import (
    ReadyModel,
    classes_of,
    classes_of_seeds,
    image_shape,
    made_with,
    ready_model,
    say_instead,
)

# How a model is sampled: nothing to images that are there.
SAMPLING = (
    "num_steps", "sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise", "guidance_interval",
    "top_k", "top_p", "more_smooth", "guidance", "gnet", "strength", "base", "vae", "labels", "balance",
    "cuda_graphs", "first_seed", "num_samples",
)  # fmt: skip
DEFAULTS = {"protocol": EMBEDDED, "first_seed": 0, "precision": "auto"}
SAMPLES = {True: 1000, False: 50_000}  # is it an embedded protocol? -> the default


def evaluate(config: EvaluateConfig, ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    """Judge a model's samples, or images -> what the door prints. RunError for what does not fit.

    One evaluation is a row; of several there are all rows, and by protocol and metric the mean and minimum.
    """
    if (config.images is None) == (not config.model):
        raise RunError("name what is judged: a MODEL, or --images, and not both.")
    _check_numbers(config)
    if config.images is not None:
        names = protocol_names(config.protocol or EMBEDDED)
        _refuse_heldout(config, names)
        if own_data(names):
            raise RunError(f"{names[0]} judges models; say with --protocol how to judge {config.images}.")
        if config.repeats > 1:
            raise RunError("--repeats draws other samples of a model: --images are judged once.")
        _refuse(config, SAMPLING, "--images are judged as they are")
        if config.stats_out is not None:
            _refuse(config, ("ref", "data"), "--stats-out judges nothing")
            given, out = weights_of(config), config.stats_out
            size, download = config.sample_batch, config.download
            return save_reference(str(config.images), out, names, given, size, ranks, stop, download)
        return _of_images(config, names, ranks, stop)
    _refuse(config, ("stats_out",), "it writes the statistics of --images")
    try:
        description = read_config(config.model)
        own = Model.of(description).sampler_defaults
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    judged = description.get("judged", {})
    say_instead(config, own | judged, "its run" if judged else "its own")
    config = _as_its_run(config, judged)
    names = protocol_names(config.protocol)
    _refuse_heldout(config, names)
    is_embedded = own_data(names) is not None
    if config.num_samples is None:
        config = dataclasses.replace(config, num_samples=SAMPLES[is_embedded])
    if is_embedded:
        check_neighbors(config.neighbors or DEFAULT_K, "num_samples", config.num_samples)
    return _of_model(config, names, ranks, stop)


def _check_numbers(config: EvaluateConfig) -> None:
    check = Check(config)
    check.at_least(1, "repeats", "sample_batch", "num_samples", "neighbors")
    check.at_most(MAX_SAMPLES, "repeats", "num_samples")
    check.at_least(0, "first_seed")
    check(math.isfinite, "finite", "guidance")


def _as_its_run(config: EvaluateConfig, judged: Mapping[str, Any]) -> EvaluateConfig:
    """With what the model's own run judged it by, where nothing else is asked for.

    By another protocol none of that holds but how samples are made.
    """
    said = {**DEFAULTS, **judged}
    if config.protocol not in (None, judged.get("protocol")):
        said = DEFAULTS | {name: judged[name] for name in ("vae", "gnet", "precision") if name in judged}
    if config.guidance in (None, 1):
        said.pop("gnet", None)
    if config.ref or config.data:
        said.pop("ref", None)
        said.pop("heldout", None)
    unsaid = [name for name in said if getattr(config, name) in (None, ())]
    values = {name: tuple(said[name]) if isinstance(said[name], list) else said[name] for name in unsaid}
    return dataclasses.replace(config, **values)


def _refuse(config: EvaluateConfig, names: Sequence[str], because: str) -> None:
    """RunError for an option that would do nothing."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise RunError(f"{option_of(name)} does nothing here: {because}.")


def _refuse_heldout(config: EvaluateConfig, names: Sequence[str]) -> None:
    if not is_trained(names):
        _refuse(
            config, ("heldout",), "its images are what the classifier of --protocol classifier has not seen"
        )


def _panel(config: EvaluateConfig, names: list[str]) -> Panel:
    return panel_of(names, config, data=config.data, heldout=config.heldout, neighbors=config.neighbors)


def _of_images(config: EvaluateConfig, names: list[str], ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    started = time.perf_counter()
    images = open_images(str(config.images))
    judge = Judge.of(_panel(config, names), len(images), images.image_shape, config.sample_batch, ranks, stop)
    metrics = judge.of_images(images, config.sample_batch, stop)
    seconds = time.perf_counter() - started
    name = config.images.name
    row = Row(name, "images", 0, 0, len(images), metrics, judge.chosen_by)
    row = dataclasses.replace(row, seconds=seconds, classifier=judge.classifier)
    about = {"images": str(config.images), "sha256": images.fingerprint, "size": list(images.image_shape[1:])}
    return {**_printed([row.to_json()]), "judged": about, "protocols": judge.described()}


def _of_model(config: EvaluateConfig, names: list[str], ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    panel = _panel(config, names)
    ready = ready_model(config, ranks.device)
    shape = image_shape(ready.decode, ready.model, ranks.device)
    judge = Judge.of(panel, config.num_samples, shape, config.sample_batch, ranks, stop)
    asked = (config.labels, config.balance)
    rows = []
    for seeds in _seeds(config):
        started = time.perf_counter()
        labels = torch.tensor(classes_of_seeds(ready.model, seeds, ranks, *asked))
        size = config.sample_batch
        batches = generate(ready.sampler, seeds, labels, batch_size=size, ranks=ranks, stop=stop)
        seen = seen_in_samples(judge, len(seeds), batches, ready.decode)
        row = Row(
            name=_name(ready),
            kind=_kind(ready),
            images_seen=ready.model.said.get("images_seen", 0),
            nfe=ready.sampler.nfe,
            samples=len(seeds),
            metrics=judge.metrics(seen, labels if ready.model.facts.num_classes else None),
            chosen_by=judge.chosen_by,
            guidance=ready.sampler.guidance,
            unguided=ready.sampler.unguided,
            strength=config.strength,
            seconds=time.perf_counter() - started,
            classifier=judge.classifier,
        )
        rows.append({**row.to_json(), "seeds": [seeds[0], seeds[-1]]})
    in_turn = classes_of(ready.model, config.num_samples, *asked) is not None
    about = {
        **ranks.on_main(made_with, ready),
        "classes": "in turn" if in_turn else "drawn by seed",
        "size": list(shape[1:]),
    }
    return {**_printed(rows), "judged": about, "protocols": judge.described()}


def _seeds(config: EvaluateConfig) -> list[range]:
    """Of every evaluation."""
    first, n = config.first_seed, config.num_samples
    return [range(first + i * n, first + (i + 1) * n) for i in range(config.repeats)]


def _kind(ready: ReadyModel) -> Kind:
    if ready.options.strength is not None:
        return "dial"
    return "trained" if ready.options.guidance == ready.model.family.unguided else "guidance"


def _name(ready: ReadyModel) -> str:
    """As its run calls the row; of a model without one, as its folder is called."""
    guidance, family, said = ready.options.guidance, ready.model.family, ready.model.said
    if guidance != family.unguided:
        return f"{family.guided}-{guidance:g}"
    is_of_run = "judged" in said and ready.options.strength is None
    return said["objective"] if is_of_run else Path(ready.options.model).name


def _printed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row; of several, all of them and what EDM2's paper takes of them: the minimum, and the mean."""
    if len(rows) == 1:
        return rows[0]
    of_all: dict[str, dict[str, dict[str, float]]] = {"mean": {}, "minimum": {}}
    for protocol, metrics in rows[0]["metrics"].items():
        for kind, over in (("mean", lambda values: math.fsum(values) / len(values)), ("minimum", min)):
            of_all[kind][protocol] = {
                name: over([row["metrics"][protocol][name] for row in rows])
                for name, value in metrics.items()
                if value is not None
            }
    return {"rows": list(rows), **of_all}
