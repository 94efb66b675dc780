"""One row of the table for one saved model."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from mclr_fast.config import EvaluateConfig
from mclr_fast.data import open_dataset
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.evaluation.mnist16 import mnist16_protocol
from mclr_fast.models import load
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import Check
from mclr_fast.runtime.precision import choose_dtype
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest

from .ranges import check_evaluation


def evaluate_model(config: EvaluateConfig, ranks: Ranks, stop: StopRequest) -> dict:
    """Sample, score -> the row. RunError for a model or data set that does not fit."""
    check_evaluation(config)
    Check(config)(math.isfinite, "finite", "guidance")
    if config.data != "mnist16":
        raise RunError(f"--data {config.data} has no protocol; only mnist16 has one.")
    try:
        net = load(config.model, dtype=choose_dtype("auto", ranks.device)).to(ranks.device)
        train, heldout = (open_dataset(config.data, split) for split in ("train", "heldout"))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise RunError(str(error)) from error
    shape = (net.img_channels, net.img_resolution, net.img_resolution)
    if shape != train.image_shape:
        raise RunError(f"{config.model} makes images {shape}, --data {config.data} has {train.image_shape}.")
    images = [data.images(np.arange(len(data))) for data in (train, heldout)]
    with tempfile.TemporaryDirectory() as folder:
        evaluator = Evaluator(
            mnist16_protocol(*images, neighbors=config.neighbors),
            config,
            range(config.first_seed, config.first_seed + config.num_samples),
            shape,
            train.num_classes,
            Path(folder),
            ranks,
            stop,
        )
        name = Path(config.model).name if config.guidance == 1 else f"cfg-{config.guidance:g}"
        return evaluator.evaluate(net, name, 0, guidance=config.guidance).row
