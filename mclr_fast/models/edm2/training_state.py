"""What NVIDIA's EDM2 training loop resumes from: its training-state file, made of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import replacing
from mclr_fast.runtime.logs import note

from . import PRESETS, Precond

LOSS_DEFAULT = (-0.4, 1.0)  # EDM2Loss's P_mean and P_std
NAME = re.compile(r"training-state-(\d{7})\.pt")


def write_training_state(
    net: Precond,
    path: Path,
    ema_stds: Sequence[float] = (0.05, 0.1),
    *,
    noise_level: tuple[float, float] | None = None,
    carry: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Write a state that resumes at image 0: the net's weights, a fresh Adam, the averages at the weights.

    Plain containers, which torch.load(weights_only=True) reads: "state", "net" (float32, the published
    names), "loss_fn", "optimizer", "ema". Their loop resumes the highest-numbered file of its run folder.

    "loss_fn" holds what EDM2Loss has: their loop gives it these attributes in place of what loss_kwargs say.
    The losses of `mclr_fast.integrations` keep what loss_kwargs say.

    Args: noise_level: P_mean and P_std; None: those of the preset that the net's input is of, else EDM2Loss's
    own. carry: makes "net" of the weights, so that it says of the net what shapes do not show.

    Errors    RunError where their loop would not resume this file, or `path` cannot be written.
    """
    _check(path)
    weights = {name: tensor.float().contiguous() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0, betas=(0.9, 0.99), eps=1e-8)
    state = {
        "state": {"cur_nimg": 0, "total_elapsed_time": 0},
        "net": carry(weights),
        "loss_fn": _loss_fn(net, path, noise_level),
        "optimizer": optimizer.state_dict(),
        "ema": {"stds": list(ema_stds), "emas": [_copy(weights) for _ in ema_stds]},
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _loss_fn(net: Precond, path: Path, noise_level: tuple[float, float] | None) -> dict[str, Any]:
    """The attributes of EDM2Loss."""
    size = (net.img_resolution, net.img_channels)
    presets = {
        (p.net["img_resolution"], p.net["img_channels"]): (p.P_mean, p.P_std) for p in PRESETS.values()
    }
    P_mean, P_std = noise_level or presets.get(size, LOSS_DEFAULT)
    if noise_level is None and size not in presets:
        note(
            f"{path}: no preset is of {size[1]}x{size[0]}x{size[0]} images, so EDM2's own loss will train "
            f"with its own P_mean {P_mean}, P_std {P_std}, whatever loss_kwargs say: --noise-level sets it."
        )
    kwargs = {"P_mean": P_mean, "P_std": P_std, "sigma_data": net.sigma_data}
    return {**kwargs, "_init_args": (), "_init_kwargs": dict(kwargs)}


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
