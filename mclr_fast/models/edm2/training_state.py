"""What NVIDIA's EDM2 training loop resumes from: its training-state file, made of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import replacing

from . import PRESETS, Precond

NAME = re.compile(r"training-state-(\d{7})\.pt")


def write_training_state(net: Precond, path: Path, ema_stds: Sequence[float] = (0.05, 0.1)) -> None:
    """Write a state that resumes at image 0: the net's weights, a fresh Adam, the averages at the weights.

    Plain containers, which torch.load(weights_only=True) reads: "state", "net" (float32, the published
    names), "loss_fn", "optimizer", "ema". Their loop resumes the highest-numbered file of its run folder.

    "loss_fn" holds the noise level of the preset that the net's input is of, as EDM2Loss has it; the losses
    of `mclr_fast.integrations` keep what loss_kwargs say.

    Errors    RunError where their loop would not resume this file, or `path` cannot be written.
    """
    _check(path)
    weights = {name: tensor.float().contiguous() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0, betas=(0.9, 0.99), eps=1e-8)
    state = {
        "state": {"cur_nimg": 0, "total_elapsed_time": 0},
        "net": weights,
        "loss_fn": _noise_level(net),
        "optimizer": optimizer.state_dict(),
        "ema": {"stds": list(ema_stds), "emas": [_copy(weights) for _ in ema_stds]},
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _noise_level(net: Precond) -> dict[str, float]:
    for preset in PRESETS.values():
        if (preset.net["img_resolution"], preset.net["img_channels"]) == (
            net.img_resolution,
            net.img_channels,
        ):
            return {"P_mean": preset.P_mean, "P_std": preset.P_std, "sigma_data": net.sigma_data}
    return {}


def _check(path: Path) -> None:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise RunError(
            f"{path.name} is not a name that EDM2's loop resumes: write RUN/training-state-0000000.pt."
        )
    others = sorted(p.name for p in path.parent.glob("training-state-*.pt") if NAME.fullmatch(p.name))
    if others and others[-1] >= path.name:
        raise RunError(
            f"{path.parent} holds {others[-1]}, which EDM2's loop would resume: choose an empty run folder."
        )
