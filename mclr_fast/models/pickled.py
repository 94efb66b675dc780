"""Other programs' pickled models: EDM2's snapshots, training states and state_dicts, VAR's weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclr_fast.pickles import reading

from .edm2 import snapshot as edm2
from .var import state_dict as var

SUFFIXES = (".pkl", ".pt", ".pth")
NVIDIA_LICENCE = "CC BY-NC-SA 4.0"
NVIDIA_FILES = re.compile(  # EDM2's releases, and DDO's
    r"edm2-img(64|512)-(xxs|xs|s|m|l|xl|xxl)(-uncond)?-(\d{7}-\d\.\d{3}|ddo)\.pkl"
    r"|edm-cifar10-(un)?cond-vp-ddo\.pkl|var_d(16|30)-ddo\.pth"
)


@dataclass(frozen=True)
class PickledModel:
    """One network in a file.

    Attributes:
        config: as in config.json, with "format" (what the file is) and "licence" (NVIDIA's by the published
            name of the file, else "unknown").
        nodes: where in the file each tensor is, by published name.
    """

    path: Path
    config: dict[str, Any]
    nodes: dict[str, dict[str, Any]]

    def state(self) -> dict[str, Tensor]:
        """The tensors, read now, in the file's dtypes."""
        return {name: reading.tensor(self.path, node) for name, node in self.nodes.items()}


def read_pickled(path: Path, ema: float | None = None) -> PickledModel:
    """Describe the network in a file without running anything that is in the file.

    Args: ema: which average of an EDM2 training state, by its std; None = the weights being trained.
    Errors    ValueError for a file that is refused or holds no network of ours.
    """
    holds = reading.read(path)
    try:
        family, form, arguments, nodes, extra = _network(path, holds, ema)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be used: a part of it is missing or malformed ({error!r})."
        ) from None
    licence = NVIDIA_LICENCE if NVIDIA_FILES.fullmatch(path.name) else "unknown"
    config = {"family": family, "net": arguments, "format": form, "licence": licence, **extra}
    return PickledModel(path, config, nodes)


def _network(path: Path, holds: Any, ema: float | None) -> tuple[str, str, dict, dict, dict]:
    """(family, format, constructor arguments, tensors, more for config.json)."""
    if not isinstance(holds, dict):
        raise ValueError(f"it holds no dictionary but {str(holds)[:40]!r}.")
    if isinstance(holds.get("ema"), dict) and holds["ema"].get("$") == "object":
        arguments, nodes = edm2.from_snapshot(holds["ema"])
        encoder = holds.get("encoder")
        extra = {"encoder": encoder["class"]} if isinstance(encoder, dict) and "class" in encoder else {}
        return "edm2", "edm2-snapshot", arguments, nodes, extra
    if {"state", "net", "optimizer"} <= holds.keys():
        nodes, extra = _training_state(holds, ema)
        sigma_data = (holds.get("loss_fn") or {}).get("sigma_data", 0.5)
        return "edm2", "edm2-training-state", edm2.from_state_dict(nodes, sigma_data), nodes, extra
    trainer = holds.get("trainer")  # a run of VAR's or CCA's own code
    if isinstance(trainer, dict):
        holds = trainer.get("var_wo_ddp", trainer)
    nodes = {name: node for name, node in holds.items() if reading.is_tensor(node)}
    if "unet.out_conv.weight" in nodes:
        return "edm2", "edm2-state-dict", edm2.from_state_dict(nodes), nodes, {}
    if "word_embed.weight" in nodes:
        return "var", "var-pth", _var_arguments(nodes, lambda node: reading.tensor(path, node)), nodes, {}
    keys = ", ".join(map(repr, list(holds)[:4]))
    raise ValueError(f"it holds {keys}: neither EDM2's snapshot, training state or state_dict, nor VAR's.")


def _training_state(holds: dict, ema: float | None) -> tuple[dict, dict]:
    if ema is None:
        return holds["net"], {}
    averages = holds.get("ema") or {"stds": [], "emas": []}
    if ema not in averages["stds"]:
        raise ValueError(f"it has no average of std {ema}, but {averages['stds'] or 'none'}.")
    return holds["net"] | averages["emas"][averages["stds"].index(ema)], {"ema_std": ema}


def _var_arguments(nodes: dict, read: Callable[[dict], Tensor]) -> dict[str, Any]:
    scales = read(nodes["lvl_1L"]).flatten().long()
    if (scales.diff() < 0).any() or (scales < 0).any() or (scales >= len(scales)).any():
        raise ValueError("its lvl_1L does not count scales.")
    return var.arguments_of(
        {name: node["shape"] for name, node in nodes.items()}, torch.bincount(scales).tolist()
    )
