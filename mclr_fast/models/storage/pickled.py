"""Other programs' pickled models: EDM2's snapshots, training states and state_dicts, VAR's weights."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclr_fast.pickles import reading

from ..edm2 import snapshot as edm2
from ..var import snapshot as var
from .contents import CARRIED, Found, Node, choose, networks, state_dicts

SUFFIXES = (".pkl", ".pt", ".pth")
ALSO_CARRIED = ("licence", "null_label", "sampler")  # of config.json, beside the network's arguments
NVIDIA_LICENCE = "CC BY-NC-SA 4.0"
VAR_FILES = re.compile(r"var_d(16|20|24|30|36)\.pth|vae_ch160v4096z32\.pth")
VAR_LICENCE = "MIT"
VQVAE = "vae_ch160v4096z32"  # VAR's published one, of all its models
NVIDIA_FILES = re.compile(  # EDM2's releases, and DDO's
    r"edm2-img(64|512)-(xxs|xs|s|m|l|xl|xxl)(-uncond)?-(\d{7}-\d\.\d{3}|ddo)\.pkl"
    r"|edm-cifar10-(un)?cond-vp-ddo\.pkl|var_d(16|30)-ddo\.pth"
)


@dataclass(frozen=True)
class PickledModel:
    """One network in a file.

    Attributes:
        config: as in config.json, with "format" (what the file is) and "licence" (NVIDIA's or VAR's by the
            published name of the file, else "unknown").
        nodes: where in the file each tensor is, by published name.
        notes: what was undone or taken for granted, in words that follow the file's name.
    """

    path: Path
    config: dict[str, Any]
    nodes: dict[str, Node]
    notes: tuple[str, ...] = ()

    def state(self) -> dict[str, Tensor]:
        """The tensors, read now, in the file's dtypes."""
        return {name: reading.tensor(self.path, node) for name, node in self.nodes.items()}


@dataclass(frozen=True)
class Contents:
    """A network that was found: as `PickledModel`; extra: of its config.json; said: what its file carries."""

    family: str
    form: str
    arguments: dict[str, Any]
    nodes: dict[str, Node]
    extra: dict[str, Any]
    notes: tuple[str, ...] = ()
    said: dict[str, Any] = field(default_factory=dict)


def read_pickled(
    path: Path, ema: float | None = None, part: str | None = None, arguments: dict[str, Any] | None = None
) -> PickledModel:
    """Describe the network in a file without running anything that is in the file.

    Args: ema: which average of an EDM2 training state, by its std; None = the weights being trained.
        part: the key that the network is under, where a file holds several. arguments: an EDM2 network's,
        where its file does not say them.
    Errors    ValueError for a file that is refused or holds no network of ours.
    """
    holds = reading.read(path)
    try:
        found = _contents(path, holds, ema, part, arguments)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be used: a part of it is missing or malformed ({error!r})."
        ) from None
    config = {
        "family": found.family,
        "net": found.arguments,
        "format": found.form,
        "licence": _licence(path.name.partition("?")[0].lower()),
    }
    config |= {key: found.said[key] for key in ALSO_CARRIED if key in found.said}
    return PickledModel(path, config | found.extra, found.nodes, found.notes)


def _licence(name: str) -> str:
    if NVIDIA_FILES.fullmatch(name):
        return NVIDIA_LICENCE
    return VAR_LICENCE if VAR_FILES.fullmatch(name) else "unknown"


def _contents(
    path: Path, holds: Any, ema: float | None, part: str | None, arguments: dict[str, Any] | None
) -> Contents:
    if isinstance(holds, list):
        holds = {str(i): each for i, each in enumerate(holds)}
    if not isinstance(holds, dict):
        raise ValueError(f"it holds no dictionary but {str(holds)[:40]!r}.")
    if {"state", "net", "optimizer"} <= holds.keys() and part is None:
        return _training_state(holds, ema, arguments)
    if ema is not None:
        raise ValueError("it is no EDM2 training state, which alone has averages of several stds.")
    found = networks(holds)
    if not found:
        keys = ", ".join(map(repr, list(holds)[:4]))
        raise ValueError(
            f"it holds {keys}: neither EDM2's snapshot, training state or state_dict, nor VAR's."
        )
    network = choose(found, part)
    if network.kind == "object":
        return _snapshot(holds, network, arguments)
    notes = _undone(network)
    shapes = {name: node["shape"] for name, node in network.node.items()}
    if network.kind == "vqvae":
        known, taken = _vqvae_arguments(network.said.get("net"), shapes)
        return Contents("vqvae", "var-vqvae-pth", known, network.node, {}, notes + taken, network.said)
    if network.kind == "var":
        read = lambda node: reading.tensor(path, node)  # noqa: E731
        known = network.said.get("net") or _var_arguments(network.node, read)
        known = _with_vqvae(known, path, any(each.kind == "vqvae" for each in found))
        said = {"null_label": True, **network.said}  # VAR's training drops labels
        return Contents("var", "var-pth", known, network.node, {}, notes, said)
    known, taken = _edm2_arguments(network, arguments)
    return Contents("edm2", "edm2-state-dict", known, network.node, {}, notes + taken, network.said)


def _snapshot(holds: Node, network: Found, arguments: dict[str, Any] | None) -> Contents:
    if network.node["class"].startswith("mclr_fast."):
        said, nodes = edm2.from_own(network.node)
        return Contents("edm2", "mclr_fast-net", said["net"], nodes, {}, _undone(network), said)
    known, nodes = edm2.from_snapshot(network.node)
    if arguments is not None:
        raise ValueError("a snapshot says its own arguments: leave out --template.")
    encoder = holds.get("encoder")
    extra = {"encoder": encoder["class"]} if isinstance(encoder, dict) and "class" in encoder else {}
    return Contents("edm2", "edm2-snapshot", known, nodes, extra, _undone(network))


def _training_state(holds: Node, ema: float | None, arguments: dict[str, Any] | None) -> Contents:
    (network,) = _edm2_state(holds["net"], "net")
    nodes, extra, notes = network.node, {}, _undone(network)
    if ema is not None:
        average, extra, noted = _average(holds.get("ema") or {}, ema)
        nodes, notes = nodes | average, notes + noted
    sigma_data = (holds.get("loss_fn") or {}).get("sigma_data", 0.5)
    known, taken = _edm2_arguments(network, arguments, sigma_data)
    return Contents("edm2", "edm2-training-state", known, nodes, extra, notes + taken, network.said)


def _edm2_state(node: Any, place: str) -> list[Found]:
    found = [each for each in state_dicts(node) if each.kind == "edm2"]
    if len(found) != 1:
        raise ValueError(f"its {place!r} is no state_dict of EDM2's.")
    return found


def _average(averages: Node, ema: float) -> tuple[dict[str, Node], dict[str, Any], tuple[str, ...]]:
    """(tensors, more for config.json, notes): PowerFunctionEMA's average of a std, or TraditionalEMA's."""
    if "stds" not in averages:
        return _traditional_average(averages, ema)
    close = [i for i, std in enumerate(averages["stds"]) if math.isclose(std, ema, rel_tol=1e-6)]
    if not close:
        raise ValueError(f"it has no average of std {ema}, but {averages['stds'] or 'none'}.")
    (found,) = _edm2_state(averages["emas"][close[0]], "ema")
    return found.node, {"ema_std": ema}, _undone(found)


def _traditional_average(
    averages: Node, ema: float
) -> tuple[dict[str, Node], dict[str, Any], tuple[str, ...]]:
    found = [each for each in networks(averages) if each.kind == "edm2"]
    if len(found) != 1:
        raise ValueError(f"it has no average of std {ema}, but {'none' if not found else 'several'}.")
    halflife = averages.get("halflife_Mimg")
    of = "" if halflife is None else f", of half-life {halflife:g} million images"
    note = f"its average is EDM2's traditional one{of}: it is taken, whatever std is asked for."
    return found[0].node, {"ema_halflife_Mimg": halflife}, (note, *_undone(found[0]))


def _edm2_arguments(
    network: Found, arguments: dict[str, Any] | None, sigma_data: float = 0.5
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(constructor arguments, notes): those given, else those its file carries, else those shapes tell."""
    said = network.said.get("net")
    if arguments is not None or isinstance(said, dict):
        return edm2.checked(said if arguments is None else arguments, network.node), ()
    return edm2.from_state_dict(network.node, sigma_data), (edm2.TAKEN,)


def _undone(network: Found) -> tuple[str, ...]:
    notes = []
    if network.place and (network.kind != "object" or network.place != "ema"):
        notes.append(f"its network is under {network.place!r}.")
    if network.undone:
        notes.append(f"undone: {', '.join(network.undone)}.")
    return tuple(notes)


def carrying(
    state: dict[str, Tensor], arguments: dict[str, Any], description: dict[str, Any]
) -> dict[str, Tensor]:
    """A state_dict that says, in the metadata that torch keeps beside it, what names and shapes do not show.

    Args: arguments: the constructor's; description: the config.json, of which ALSO_CARRIED goes along.
    Other programs' load_state_dict takes it as any other.
    """
    also = {key: description[key] for key in ALSO_CARRIED if key in description}
    metadata = dict(getattr(state, "_metadata", {}))
    metadata[""] = {**metadata.get("", {"version": 1}), CARRIED: {"net": arguments, **also}}
    carried = OrderedDict(state)
    carried._metadata = OrderedDict(metadata)
    return carried


def _var_arguments(nodes: dict, read: Callable[[dict], Tensor]) -> dict[str, Any]:
    scales = read(nodes["lvl_1L"]).flatten().long()
    if (scales.diff() < 0).any() or (scales < 0).any() or (scales >= len(scales)).any():
        raise ValueError("its lvl_1L does not count scales.")
    return var.transformer_arguments(
        {name: node["shape"] for name, node in nodes.items()}, torch.bincount(scales).tolist()
    )


def _with_vqvae(arguments: dict[str, Any], path: Path, inside: bool) -> dict[str, Any]:
    """With the VQVAE that the transformer's tokens are of, where it is in the same file or beside it."""
    if "vqvae" in arguments:
        return arguments
    beside = path.parent / f"{VQVAE}.pth"
    if inside or beside.is_file():
        return arguments | {"vqvae": str((path if inside else beside).absolute())}
    return arguments


def _vqvae_arguments(said: Any, shapes: var.Shapes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(constructor arguments, notes): those its file carries, else those shapes tell."""
    if isinstance(said, dict):
        return said, ()
    return var.vqvae_arguments(shapes), (var.TAKEN,)
