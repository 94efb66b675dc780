"""One row of the table for one saved model."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from mclr_fast.config import EvaluateConfig
from mclr_fast.data import open_dataset
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.evaluation.mnist16 import mnist16_protocol
from mclr_fast.evaluation.rows import Row
from mclr_fast.models import Model, load, read_config
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import Check
from mclr_fast.runtime.precision import choose_dtype
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest

from .ranges import check_evaluation


def evaluate_model(config: EvaluateConfig, ranks: Ranks, stop: StopRequest) -> Row:
    """Sample, score -> the row. RunError for a model or data set that does not fit."""
    check_evaluation(config)
    Check(config)(math.isfinite, "finite", "guidance")
    if config.data != "mnist16":
        raise RunError(f"--data {config.data} has no protocol; only mnist16 has one.")
    try:
        model = Model.of(read_config(config.model))
        net = load(config.model, dtype=choose_dtype("auto", ranks.device)).to(ranks.device)
        train, heldout = (open_dataset(config.data, split) for split in ("train", "heldout"))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise RunError(str(error)) from error
    shape = model.facts.shape
    if shape != train.image_shape:
        raise RunError(f"{config.model} makes images {shape}, --data {config.data} has {train.image_shape}.")
    with tempfile.TemporaryDirectory() as folder:
        evaluator = Evaluator(
            protocol=mnist16_protocol(train, heldout, config.neighbors),
            config=config,
            seeds=range(config.first_seed, config.first_seed + config.num_samples),
            num_classes=train.num_classes,
            model=model,
            decode=model.codec(train).decode,
            folder=Path(folder),
            objective="",
            ranks=ranks,
            stop=stop,
        )
        if config.guidance == 1:
            return evaluator.evaluate(net, Path(config.model).name, "trained").row
        name = f"cfg-{config.guidance:g}"
        return evaluator.evaluate(net, name, "guidance", guidance=config.guidance).row
