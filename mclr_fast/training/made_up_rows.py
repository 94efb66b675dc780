"""Rows of a step with nothing in them, to count or to time it with."""

from __future__ import annotations

import torch
from torch import Tensor

from mclr_fast.config import ObjectiveConfig
from mclr_fast.methods.columns import Columns
from mclr_fast.models import Model
from mclr_fast.models.rows import OWN_REFERENCE, Rows


def row_shape(model: Model, columns: Columns, height: int, width: int) -> tuple[int, ...]:
    """Of x: one image a row where columns share it."""
    return (height, *(() if columns.shared else (width,)), *model.facts.shape)


def made_up_rows(
    model: Model,
    objective: ObjectiveConfig,
    columns: Columns,
    height: int,
    width: int,
    device: torch.device,
    *,
    own_reference: bool = False,
) -> Rows:
    """`width` columns of `height` rows on a device, the meta device too: blank images, all of class 0.

    own_reference: whether they bring along what a frozen reference says of them.
    """
    law = model.law(objective)(0, torch.arange(height))
    if own_reference:
        law = law | {OWN_REFERENCE: torch.zeros(height)}
    with torch.device(device):
        return Rows(
            x=torch.zeros(row_shape(model, columns, height, width), dtype=model.facts.dtype),
            labels=torch.zeros(height, width, dtype=torch.int64),
            shared=columns.shared,
            law={name: value.to(device) for name, value in law.items()},
            position=torch.arange(height),
            seed=0,
            scale=torch.ones(()),
            columns=torch.arange(width),
            num_columns=len(columns.kinds(objective.num_negatives)),
        )


def even_ratio(x_noisy: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """Weights of negatives as a classifier that knows nothing gives them; its own work is left out."""
    return torch.ones(labels.shape, device=labels.device)
