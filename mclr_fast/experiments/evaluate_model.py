"""Rows of the table for one saved model, or for images at hand."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mclr_fast.config import EvalConfig, EvaluateConfig
from mclr_fast.data import open_dataset
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.evaluation.image_sets import open_images
from mclr_fast.evaluation.judge import Judge
from mclr_fast.evaluation.mnist16 import mnist16_protocol
from mclr_fast.evaluation.protocols import EMBEDDED, protocol_names
from mclr_fast.evaluation.references import save_reference
from mclr_fast.evaluation.rows import Row
from mclr_fast.models import Model, load, read_config
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import Check, option_of
from mclr_fast.runtime.precision import choose_dtype
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest
from mclr_fast.sampling.generate import generate

from .ranges import MAX_SAMPLES, check_evaluation
from .ready_model import classes_of, classes_of_seeds, made_with, ready_model

MNIST16 = {"num_steps": 12, "sigma_min": 0.002, "sigma_max": 40.0}  # the embedded run's, unless a model says
# How a model is sampled, beside what a run's evaluations have.
SAMPLE_ONLY = (
    "rho", "S_churn", "S_min", "S_max", "S_noise", "guidance_interval", "gnet", "strength", "base", "vae",
    "labels", "balance",
)  # fmt: skip
SAMPLES = {True: 1000, False: 50_000}  # is it the embedded protocol? -> the default


def evaluate(config: EvaluateConfig, ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    """Judge a model's samples, or images -> what the door prints. RunError for what does not fit.

    One evaluation is a row; of several there are all rows, and by protocol and metric the mean and minimum.
    """
    names = protocol_names(config.protocol)
    embedded = names == [EMBEDDED]
    if config.num_samples is None:
        config = dataclasses.replace(config, num_samples=SAMPLES[embedded])
    check = Check(config)
    check.at_least(1, "repeats", "num_samples", "neighbors", "sample_batch")
    check.at_most(MAX_SAMPLES, "repeats", "num_samples")
    check.at_least(0, "first_seed")
    check(math.isfinite, "finite", "guidance")
    if (config.images is None) == (not config.model):
        raise RunError("name what is judged: a MODEL, or --images, and not both.")
    if config.images is not None:
        if embedded:
            raise RunError(f"{EMBEDDED} judges models; say with --protocol how to judge {config.images}.")
        if config.repeats > 1:
            raise RunError("--repeats draws other samples of a model: --images are judged once.")
        _refuse(config, (*SAMPLE_ONLY, *MNIST16, "guidance", "first_seed"), "--images are judged as they are")
        if config.stats_out is not None:
            _refuse(config, ("ref", "data"), "--stats-out judges nothing")
            given, out = _weights(config), config.stats_out
            size, download = config.sample_batch, config.download
            return save_reference(str(config.images), out, names, given, size, ranks, stop, download)
        return _of_images(config, names, ranks, stop)
    _refuse(config, ("stats_out",), "it writes the statistics of --images")
    if embedded:
        _refuse(config, SAMPLE_ONLY, f"--protocol {EMBEDDED} samples as a run's evaluations do")
        rows = _mnist16_rows(config, ranks, stop)
        return _printed([row.to_json() for row in rows])
    return _of_model(config, names, ranks, stop)


def _refuse(config: EvaluateConfig, names: Sequence[str], because: str) -> None:
    """RunError for an option that would do nothing."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise RunError(f"{option_of(name)} does nothing here: {because}.")


def _of_images(config: EvaluateConfig, names: list[str], ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    started = time.perf_counter()
    images = open_images(str(config.images))
    judge = _judge(config, names, len(images), tuple(images.image_shape[1:]), ranks, stop)
    metrics = judge.of_images(images, config.sample_batch, stop)
    seconds = time.perf_counter() - started
    name = config.images.name
    row = Row(name, "images", 0, 0, len(images), metrics, judge.chosen_by, seconds=seconds)
    about = {"images": str(config.images), "sha256": images.fingerprint, "size": list(images.image_shape[1:])}
    return {**_printed([row.to_json()]), "judged": about, "protocols": judge.described()}


def _of_model(config: EvaluateConfig, names: list[str], ranks: Ranks, stop: StopRequest) -> dict[str, Any]:
    ready = ready_model(config, ranks.device)
    shape = ready.decode(torch.zeros(1, *ready.model.facts.shape, device=ranks.device)).shape[1:]
    judge = _judge(config, names, config.num_samples, tuple(shape[1:]), ranks, stop)
    rows = []
    for seeds in _seeds(config):
        started = time.perf_counter()
        labels = torch.tensor(classes_of_seeds(ready, seeds, ranks))
        collector = judge.collector(len(seeds))
        size = config.sample_batch
        for batch in generate(ready.sampler, seeds, labels, batch_size=size, ranks=ranks, stop=stop):
            collector.add(ready.decode(batch.x), batch.places)
        row = Row(
            name=_name(config),
            kind="trained" if config.guidance == 1 else "guidance",
            images_seen=0,
            nfe=ready.sampler.nfe,
            samples=len(seeds),
            metrics=judge.metrics(collector.collected()),
            chosen_by=judge.chosen_by,
            guidance=ready.sampler.guidance,
            unguided=ready.sampler.unguided,
            seconds=time.perf_counter() - started,
        )
        rows.append({**row.to_json(), "seeds": [seeds[0], seeds[-1]]})
    classes = "in turn" if classes_of(ready.options, ready.model, config.num_samples) else "drawn by seed"
    about = {**ranks.on_main(made_with, ready), "classes": classes, "size": list(shape[1:])}
    return {**_printed(rows), "judged": about, "protocols": judge.described()}


def _judge(
    config: EvaluateConfig,
    names: list[str],
    num_images: int,
    size: tuple[int, int],
    ranks: Ranks,
    stop: StopRequest,
) -> Judge:
    sources = [*config.ref, *([config.data] if config.data else [])]
    weights, download = _weights(config), config.download
    return Judge.of(names, sources, weights, num_images, size, config.sample_batch, ranks, stop, download)


def _weights(config: EvaluateConfig) -> dict[str, Path | None]:
    """Of each extractor, as the options say."""
    return {"inception": config.inception_weights, "dinov2": config.dinov2_weights}


def _mnist16_rows(config: EvaluateConfig, ranks: Ranks, stop: StopRequest) -> list[Row]:
    """By the embedded run's protocol."""
    if config.ref or config.data not in (None, EMBEDDED):
        raise RunError(f"{EMBEDDED} compares with its own digits; another --ref needs another --protocol.")
    try:
        model = Model.of(read_config(config.model))
        net = load(config.model, dtype=choose_dtype(config.precision, ranks.device)).to(ranks.device)
        options = _mnist16_options(config, model)
        train, heldout = (open_dataset(EMBEDDED, split) for split in ("train", "heldout"))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise RunError(str(error)) from error
    shape = model.facts.shape
    if shape != train.image_shape:
        raise RunError(
            f"{config.model} makes images {shape}, {EMBEDDED} judges {train.image_shape}: see --protocol."
        )
    rows = []
    for seeds in _seeds(config):
        with tempfile.TemporaryDirectory() as folder:
            evaluator = Evaluator(
                protocol=mnist16_protocol(train, heldout, config.neighbors),
                config=options,
                seeds=seeds,
                num_classes=train.num_classes,
                model=model,
                decode=model.codec(train).decode,
                folder=Path(folder),
                objective="",
                ranks=ranks,
                stop=stop,
            )
            if config.guidance == 1:
                rows.append(evaluator.evaluate(net, _name(config), "trained").row)
            else:
                found = evaluator.evaluate(net, _name(config), "guidance", guidance=config.guidance)
                rows.append(found.row)
    return rows


def _mnist16_options(config: EvaluateConfig, model: Model) -> EvalConfig:
    """The door's as a run has them."""
    own = {name: value for name, value in model.said.get("sampler", {}).items() if name in MNIST16}
    said = {name: value for name in MNIST16 if (value := getattr(config, name)) is not None}
    counts = {
        name: getattr(config, name) for name in ("num_samples", "first_seed", "neighbors", "sample_batch")
    }
    options = EvalConfig(**{**MNIST16, **own, **said}, **counts, grid_noises=1)
    check_evaluation(options)
    return options


def _seeds(config: EvaluateConfig) -> list[range]:
    """Of every evaluation."""
    first, n = config.first_seed, config.num_samples
    return [range(first + i * n, first + (i + 1) * n) for i in range(config.repeats)]


def _name(config: EvaluateConfig) -> str:
    return Path(config.model).name if config.guidance == 1 else f"cfg-{config.guidance:g}"


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
