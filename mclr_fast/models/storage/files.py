"""Models on disk: folders of model.safetensors (the published names), config.json, a card; and pickles."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from mclr_fast.pickles.kinds import LOOK, foreign
from mclr_fast.runtime import formats
from mclr_fast.runtime.files import file_sha256, replacing, write_json
from mclr_fast.runtime.logs import note
from mclr_fast.runtime.remote.downloads import is_address, place_of, shown
from mclr_fast.runtime.remote.hub import is_hub_address
from mclr_fast.runtime.tensor_files import read_tensors

from ..family import Model
from ..var import VQVAE
from . import card, on_hub, published
from .pickled import SUFFIXES, read_pickled

OURS = ("config.json", "model.safetensors")
SHIPPED = Path(__file__).parents[2] / "assets"


def model_from_config(config: dict[str, Any], **overrides: Any) -> nn.Module:
    """Build {"family": "edm2", "net": constructor arguments}, with overrides (dtype, dropout).

    A "vqvae" is of no family: it belongs to VAR's models.
    """
    build = partial(VQVAE, **config["net"]) if config.get("family") == "vqvae" else Model.of(config).build
    try:
        return build(**overrides)
    except (TypeError, RuntimeError, OverflowError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"the configuration does not describe an {config['family']} network: {error}."
        ) from None


def resolve(path_or_name: str | Path) -> Path:
    """The folder of a model: a path, its model.safetensors, a run's folder or a shipped one's name.

    A pickle is itself; of a run it is the best model, or in one without evaluations the final one. An https
    address, or the name of a published model, is its file, downloaded first where it is not there; an address
    of the hub, hf:USER/NAME[@REVISION], is the folder of what was downloaded.
    Errors: FileNotFoundError; ValueError for what is no model; RunError where a download fails.
    """
    if (file := _downloaded(path_or_name)) is not None:
        return file
    path = Path(path_or_name)
    with suppress(RuntimeError):  # a user without a home
        path = path.expanduser()
    if path.name in OURS:
        path = path.parent
    elif path.is_file():
        return path  # whatever its name: reading it says what it is
    if not path.exists() and (SHIPPED / path.name).is_dir() and len(path.parts) == 1:
        path = SHIPPED / path.name
    path = _of_run(path)
    if not (path / "model.safetensors").is_file():
        _refuse_runs(path)
    for name in OURS:
        if not (path / name).is_file():
            shipped = sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            known = {*beside, *(shipped if len(path.parts) == 1 else ()), *published.FILES} - {path.name}
            nearest = difflib.get_close_matches(path.name.removesuffix(".pkl"), known)
            raise FileNotFoundError(
                f"no model at {path_or_name}: {path / name} is missing. A model is a folder with config.json "
                f"and model.safetensors, an EDM2 snapshot (.pkl), an https address of one, or a published "
                f"name. Nearest names: {', '.join(nearest) or 'none'}; shipped with the package: "
                f"{', '.join(shipped)}."
            )
    return path


def _of_run(path: Path) -> Path:
    """The model in a run's folder; any other path itself."""
    if (path / "model.safetensors").exists():
        return path
    kept = path / "checkpoints"
    if (kept / "best" / "config.json").exists():
        return kept / "best"
    found = sorted(file.parent for file in kept.glob("final-*/config.json"))
    own = [folder for folder in found if len(found) == 1 or folder.name != "final-denoising"]  # the control's
    return own[0] if len(own) == 1 else path


def _refuse_runs(path: Path) -> None:
    """FileNotFoundError for the folder of a run that has no model yet, or of several runs."""
    if (path / "log.jsonl").exists():
        raise FileNotFoundError(
            f"{path} is a run that has no model yet: it saves one at its first evaluation, and at its end."
        )
    if runs := sorted(kept.parent for kept in path.glob("*/checkpoints")):
        raise FileNotFoundError(f"{path} holds several runs: name one of them, like {runs[0]}.")


def _downloaded(path_or_name: str | Path) -> Path | None:
    """The pickle of an address or a published name, the folder of one of the hub's; None for a path."""
    text = str(path_or_name).strip()
    if is_hub_address(text):
        return on_hub.local(text)
    if (scheme := re.match(r"(\w{2,}):/", text)) and not is_address(text) and not Path(text).exists():
        raise ValueError(
            f"{text.partition('?')[0]} is neither a path nor an https address: a model is not read by "
            f"{scheme[1]}. Give its path, its https address, or hf:USER/NAME."
        )
    if is_address(text) and place_of(text).suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{shown(text)} is no file that a model is read from by its address ({', '.join(SUFFIXES)}): "
            "name a model of the hub as hf:USER/NAME, or download the folder's config.json and "
            "model.safetensors yourself, and name the folder."
        )
    return published.local(text)


def weights_file(path_or_name: str | Path) -> Path:
    """The file that holds a model's weights."""
    path = resolve(path_or_name)
    return path if path.is_file() else path / "model.safetensors"


def read_config(path_or_name: str | Path) -> dict[str, Any]:
    """config.json of a model folder, or what it would be. ValueError when it is no JSON object of ours."""
    path = resolve(path_or_name)
    if path.is_file():
        return read_pickled(path).config
    path = path / "config.json"
    try:
        config = json.loads(path.read_bytes())  # bytes: in UTF-8 or UTF-16, with a mark of it or without
    except ValueError as error:
        raise ValueError(f"{path} is not JSON {_instead(path, error)}") from None
    if not isinstance(config, dict) or "net" not in config:
        raise ValueError(f"{path} does not describe a model: it has no 'net'.")
    return _located(formats.model(config), path.parent)


def _located(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same, a VQVAE that lies in the model's folder named by its whole path."""
    vqvae = config["net"].get("vqvae") if isinstance(config["net"], dict) else None
    if not isinstance(vqvae, str) or not vqvae or not (folder / vqvae).exists():
        return config
    return config | {"net": config["net"] | {"vqvae": str((folder / vqvae).absolute())}}


def identity(path_or_name: str | Path) -> dict[str, Any]:
    """Digests that another copy of the model has too, wherever it lies, and no other model.

    Of the weights' file, whole; and of what config.json says of the network and of how it is sampled. Who
    made the model is left out. Errors: as `resolve`; ValueError where config.json is no JSON.
    """
    path = resolve(path_or_name)
    weights = {"weights": file_sha256(weights_file(path))}
    if path.is_file():
        return weights
    said = json.loads((path / "config.json").read_bytes())
    kept = {name: said.get(name) for name in ("family", "net", "sampler", "null_label")}
    words = json.dumps(kept, sort_keys=True).encode()
    return {**weights, "network": hashlib.sha256(words).hexdigest()[:16]}


def read_state(path_or_name: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors in the file's dtypes) of a model, whichever file it is in; nothing is built."""
    path = resolve(path_or_name)
    if path.is_file():
        model = read_pickled(path)
        note(*(f"{path}: {each}" for each in model.notes))
        return model.config, model.state()
    try:
        return read_config(path), read_tensors(path / "model.safetensors")
    except SafetensorError as error:
        file = path / "model.safetensors"
        raise ValueError(f"{file} is damaged {_instead(file, error)}") from None


def _instead(path: Path, error: Exception) -> str:
    """What a file is that could not be read as what its name says, or the error, to end a sentence."""
    with open(path, "rb") as file:
        kind = foreign(file.read(LOOK), path.stat().st_size)
    return f"but {kind}" if kind and not kind.startswith(("JSON", "safetensors")) else f"({error})."


def find_vqvae(path_or_name: str | Path) -> tuple[dict[str, Any], Callable[[], dict[str, Tensor]]]:
    """(config, what reads the tensors) of a VQVAE: VAR's training checkpoints hold one beside a transformer.

    Errors    as `resolve` and `read_config`; ValueError where there is none.
    """
    path = resolve(path_or_name)
    config = read_config(path)
    if config["family"] == "var" and path.is_file():
        model = read_pickled(path, part="vae_local")
        return model.config, model.state
    if config["family"] != "vqvae":
        raise ValueError(f"{path_or_name} is no VQVAE but a model of family {config['family']!r}.")
    return config, lambda: read_state(path)[1]


def load(path_or_name: str | Path, **overrides: Any) -> nn.Module:
    """Build a saved model and load its weights, in eval mode, on the CPU, as float32.

    Args: path_or_name: a model folder, "mnist16-base", or a pickle that `read_pickled` reads; overrides:
        constructor arguments that do not change shapes (dtype, dropout).
    Returns: the network; its `description` is the config.json.
    Errors: FileNotFoundError; ValueError naming the first tensors that do not fit.
    """
    config, state = read_state(path_or_name)
    with torch.device("meta"):  # whether it fits is known before anything of its size is allocated
        check_state(model_from_config(config).state_dict(), state, path_or_name)
    net = model_from_config(config, **overrides)
    net.load_state_dict(state)
    net.description = config
    return net.eval()


def check_state(own: dict[str, Tensor], state: dict[str, Tensor], source: str | Path) -> None:
    """ValueError, naming the first difference, unless names and shapes agree."""
    differing = sorted(own.keys() ^ state.keys())
    if differing:
        raise ValueError(
            f"{source} does not fit the network: {len(differing)} tensors are missing or unknown, "
            f"first {differing[0]!r}."
        )
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{source} does not fit the network: {name!r} is {list(state[name].shape)} in the "
                f"file and {list(tensor.shape)} in the network."
            )


def describe(net_arguments: dict[str, Any], family: str = "edm2", **provenance: Any) -> dict[str, Any]:
    """The config.json of a model; provenance says where its weights come from."""
    arguments = {k: v for k, v in net_arguments.items() if not isinstance(v, torch.dtype)}
    return {"family": family, "net": arguments, **provenance}


def _with_sampler(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json that says all numbers of its sampler: those that it has, else its family's."""
    if config.get("family") == "vqvae":
        return dict(config)
    return {**config, "sampler": Model.of(config).sampler_defaults}


def save_model(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a model folder that `load` reads: config.json, its card, model.safetensors."""
    write_description(folder, config)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary)


def write_description(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json, with all numbers of its sampler, and README.md, the card made of it."""
    config = _with_sampler(config)
    write_json(folder / "config.json", config)
    with replacing(folder / card.NAME) as temporary:
        temporary.write_text(card.card(config), encoding="utf-8")
