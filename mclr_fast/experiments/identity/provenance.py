"""What a run's models say of how they were made and measured, in config.json and so on their card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.evaluation.rows import Row
from mclr_fast.methods.registry import make_method
from mclr_fast.models import write_description

from .fingerprints import shown
from .versions import software

AVERAGES = {"plain": ("ema", "ema_beta"), "power": ("ema", "ema_stds")}
TRAINING = ("batch_size", "lr", "lr_schedule", "warmup_images", "betas", "dropout", "flip", "precision")


def made_of(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """Objective with its settings, data, training and versions of one arm's models, as JSON."""
    names = (*TRAINING, *AVERAGES[config.train.ema])
    options = {name: getattr(config.train, name) for name in names}
    return {
        "settings": repr(make_method(config.objective).objective),
        "data": {
            "name": Path(config.data).name,
            "images": len(dataset),
            "classes": len(np.unique(dataset.labels)),
            "contents": shown(dataset.identity).partition(" ")[0],
        },
        "training": {"seed": config.seed, **options},
        "versions": software(),
    }


def measured(row: Row, seeds: Sequence[int], *, chose: bool) -> dict[str, Any]:
    """An entry of config.json's "metrics". seeds: of the samples; chose: whether they chose the model."""
    return {
        "samples": row.samples,
        "seeds": [seeds[0], seeds[-1]],
        "nfe": row.nfe,
        "chose": chose,
        "metrics": row.metrics,
    }


def add_metrics(folder: Path, row: Row, seeds: Sequence[int]) -> None:
    """Say in a saved model what it scored on samples that chose nothing, in place of such before."""
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = [entry for entry in said.get("metrics", ()) if entry["chose"]]
    write_description(folder, said | {"metrics": [*kept, measured(row, seeds, chose=False)]})
