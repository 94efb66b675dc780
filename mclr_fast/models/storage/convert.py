"""A model written in the format of another program, or of this one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mclr_fast.config import ConvertConfig
from mclr_fast.pickles.containers import LOOK, STREAM_START
from mclr_fast.pickles.reading import DTYPES
from mclr_fast.pickles.rewriting import rewrite
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256, replacing
from mclr_fast.runtime.logs import note

from ..edm2.training_state import write_training_state
from ..family import families, get_family
from . import files
from .pickled import PickledModel, carrying, read_pickled

UNSAID = ("edm2-training-state", "edm2-state-dict")  # formats that do not say all arguments


def convert(config: ConvertConfig) -> None:
    """Read the model and write it as config.to says. RunError for a mistake of the user."""
    if config.to == "edm2-pkl" and config.template is None:
        raise RunError("--to edm2-pkl needs --template THEIR.pkl, your own snapshot.")
    if config.template is not None and config.to not in ("edm2-pkl", "folder"):
        raise RunError(f"--to {config.to} takes no --template.")
    for name in ("ema", "part"):
        if getattr(config, name) is not None and config.to != "folder":
            raise RunError(f"--{name} chooses what of a file becomes a folder: leave out --to.")
    if config.noise_level is not None and config.to != "edm2-training-state":
        raise RunError(f"--noise-level is written into an edm2-training-state, not with --to {config.to}.")
    if config.noise_level is not None:
        mean, deviation = config.noise_level
        if not (math.isfinite(mean) and 0 < deviation < math.inf):
            raise RunError(
                f"--noise-level {mean:g} {deviation:g}: a mean and a standard deviation above 0 are meant."
            )
    with _mistakes():
        WRITERS[config.to](config)


def write_folder(config: ConvertConfig) -> None:
    """Write model.safetensors and config.json, each with the source's name, SHA-256 and licence."""
    path, folder = files.resolve(config.source), config.out
    if path.is_dir():
        raise RunError(f"{config.source} is a model folder already: say what it should become with --to.")
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise RunError(f"{folder} is a file or not empty: choose another folder to write.")
    pickled = read_pickled(path, config.ema, config.part, _arguments_of(config.template))
    note(*(f"{path}: {each}" for each in pickled.notes))
    state, description = pickled.state(), dict(pickled.config)
    if description["family"] in families():
        with torch.device("meta"):
            files.check_state(files.model_from_config(description).state_dict(), state, path)
    _check_finite(state, path)
    description["licence"] = config.licence or description["licence"]
    description["source"] = {"file": path.name, "sha256": file_sha256(path)}
    metadata = {
        "format": "pt",
        "licence": description["licence"],
        "source": path.name,
        "source_sha256": description["source"]["sha256"],
    }
    with replacing(folder / "model.safetensors") as temporary:
        save_file(state, temporary, metadata=metadata)
    files.write_description(folder, description)


def _arguments_of(template: Path | None) -> dict[str, Any] | None:
    """The constructor arguments of an EDM2 network that says them."""
    if template is None:
        return None
    description = files.read_config(template)
    is_state = files.resolve(template).is_file() and description.get("format") in UNSAID
    if description["family"] != "edm2" or is_state:
        raise RunError(
            f"--template {template} does not say its network's arguments: give an EDM2 snapshot (.pkl) or a "
            "model folder of the same network."
        )
    return description["net"]


def write_edm2_training_state(config: ConvertConfig) -> None:
    """What NVIDIA's loop resumes from: `write_training_state` of the model."""
    net, arguments = _load_edm2(config)
    carry = partial(carrying, arguments=arguments, description=net.description)
    write_training_state(net, config.out, noise_level=config.noise_level, carry=carry)


def write_edm2_state_dict(config: ConvertConfig) -> None:
    """A state_dict, float32, that EDM2's own Precond loads strictly; it carries the network's arguments."""
    net, arguments = _load_edm2(config)
    state = carrying(net.state_dict(), arguments, net.description)
    for name, tensor in state.items():
        state[name] = tensor.contiguous()
    with replacing(config.out) as temporary:
        torch.save(state, temporary)


def _load_edm2(config: ConvertConfig) -> tuple[Any, dict[str, Any]]:
    """(the network, all its constructor arguments). RunError for another family's."""
    description = files.read_config(config.source)
    if description.get("family") != "edm2":
        raise RunError(
            f"{config.source} is no EDM2 model but {description.get('family')}: --to {config.to} needs one."
        )
    return files.load(config.source), get_family("edm2").complete(description["net"])


def write_edm2_snapshot(config: ConvertConfig) -> None:
    """The user's own snapshot with the model's weights in place of its own; all else is the template's.

    So what EDM2's programs run when they read it is the source that was in the template. Weights that its
    dtypes hold exactly are written in them; else all are float32, which their programs read as well.
    """
    state = files.load(config.source).state_dict()
    template = files.resolve(config.template)
    if template.is_dir():
        raise RunError(f"--template {template} is a model folder: give your own EDM2 snapshot (.pkl).")
    mould = read_pickled(template)
    if mould.config["format"] != "edm2-snapshot":
        raise RunError(f"--template {config.template} is no EDM2 snapshot but an {mould.config['format']}.")
    description = files.read_config(config.source)
    complete = get_family("edm2").complete
    ours, theirs = complete(description["net"]), complete(mould.config["net"])
    differing = [name for name in ours if ours[name] != theirs.get(name)]
    if differing:
        name = differing[0]
        raise RunError(
            f"--template {config.template} is of another architecture: its {name} is {theirs.get(name)}, the "
            f"model's {ours[name]}."
        )
    shapes = {name: torch.empty(node["shape"], device="meta") for name, node in mould.nodes.items()}
    files.check_state(state, shapes, config.template)
    _check_finite(state, config.source)
    _check_plain(mould, config.template)
    cast = {name: tensor.to(DTYPES[mould.nodes[name]["dtype"]]) for name, tensor in state.items()}
    changed = sum(int((cast[name].float() != tensor).sum()) for name, tensor in state.items())
    if changed:
        _note_float32(config, changed, sum(tensor.numel() for tensor in state.values()), mould)
        with replacing(config.out) as temporary:
            rewrite(mould.path, temporary, mould.nodes, state)
        return
    with replacing(config.out) as temporary:
        shutil.copyfile(mould.path, temporary)
        with open(temporary, "rb+") as file:
            for name, tensor in cast.items():
                file.seek(mould.nodes[name]["start"])
                file.write(_bytes(tensor, mould.nodes[name]["stride"]))


def write_var_pth(config: ConvertConfig) -> None:
    """VAR's weights, or its VQVAE's, as its own code loads them: a state_dict, saved by torch.save."""
    description, state = files.read_state(config.source)
    if description.get("family") not in ("var", "vqvae"):
        raise RunError(f"{config.source} is an {description.get('family')} model; --to var-pth needs a VAR.")
    with replacing(config.out) as temporary:
        torch.save(carrying(state, description["net"], description), temporary)


WRITERS = {
    "folder": write_folder,
    "edm2-training-state": write_edm2_training_state,
    "edm2-state-dict": write_edm2_state_dict,
    "edm2-pkl": write_edm2_snapshot,
    "var-pth": write_var_pth,
}


@contextmanager
def _mistakes() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from None


def _check_finite(state: dict[str, Tensor], source: Any) -> None:
    for name, tensor in state.items():
        if name != "attn_bias_for_masking" and not tensor.isfinite().all():  # VAR's mask holds -inf
            raise RunError(f"{source} has values in {name!r} that are not finite.")


def _note_float32(config: ConvertConfig, changed: int, total: int, mould: PickledModel) -> None:
    dtypes = sorted({str(DTYPES[node["dtype"]]).removeprefix("torch.") for node in mould.nodes.values()})
    note(
        f"{config.out} holds its weights as float32, {total * 4 / 1e6:,.1f} MB, which EDM2's programs read "
        f"as they do the template's {' and '.join(dtypes)}; that would round {changed:,} of {total:,}."
    )


def _check_plain(mould: PickledModel, template: Path) -> None:
    """EDM2's programs read a plain pickle, and writing into torch.save's zip would break its checksums."""
    with open(mould.path, "rb") as file:
        start = file.read(LOOK)
    if start.startswith(b"PK") or STREAM_START.match(start):
        raise RunError(
            f"--template {template} was written by torch.save, which EDM2's programs do not read: give a "
            "snapshot as EDM2's loop writes it."
        )
    if any("data" in node for node in mould.nodes.values()):
        raise RunError(
            f"--template {template} is a pickle of protocol 2, whose weights are text: write it again with "
            "protocol 3 or later."
        )
    _check_apart(mould.nodes, template)


def _check_apart(nodes: dict[str, dict[str, Any]], template: Path) -> None:
    """Every tensor must have bytes of its own, without gaps, or writing one would change another."""
    end = 0
    for node in sorted(nodes.values(), key=lambda node: node["start"]):
        size = math.prod(node["shape"]) * DTYPES[node["dtype"]].itemsize
        if node["start"] < end or node["nbytes"] != size:
            raise RunError(f"--template {template} has tensors that share memory: choose another snapshot.")
        end = node["start"] + node["nbytes"]


def _bytes(tensor: Tensor, stride: list[int]) -> bytes:
    """The tensor's bytes as they lie in memory under a dense stride."""
    laid_out = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
    flat = laid_out.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes()
