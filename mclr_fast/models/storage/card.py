"""A model's card, README.md: what its config.json says, for people and for the hub's search."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from ..family import Model, families
from . import published
from .pickled import NVIDIA_LICENCE, VAR_LICENCE

NAME = "README.md"
UNKNOWN = "not known"
HUB_DATA = {"mnist16": "ylecun/mnist"}  # data sets of ours that are made of one that the hub has
HUB_LICENCES = {NVIDIA_LICENCE: "cc-by-nc-sa-4.0", VAR_LICENCE: "mit", "Apache-2.0": "apache-2.0"}
LICENCES = {
    NVIDIA_LICENCE: "Creative Commons BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/). The "
    "weights are, or were made of, weights that NVIDIA gives away under this licence: they may be used and "
    "passed on for non-commercial purposes only, with NVIDIA named, changes said, under the same licence.",
    VAR_LICENCE: "MIT: the weights are, or were made of, weights under this licence.",
}
Config = Mapping[str, Any]


def card(config: Config, address: str | None = None) -> str:
    """The card of a model, Markdown after the YAML that the hub reads; all of it from its config.json.

    What config.json does not say is said to be unknown. address: what others name it by (hf:USER/NAME);
    None where that is its folder.
    """
    front = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in _front(config)]
    rows = [f"| {term} | {said} |" for term, said in _facts(config)]
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {_title(config)}",
        "A class-conditional image generator, made with mclr_fast. This card was written from config.json.",
        _use(config, address or "FOLDER"),
        "\n".join(["| | |", "| --- | --- |", *rows]),
        "## Metrics",
        _metrics(config),
        "## Licence",
        _licence(config),
    ]
    return "\n\n".join(parts) + "\n"


def licence_of(config: Config) -> str | None:
    """The licence that config.json states; None where it is unknown."""
    licence = str(config.get("licence") or "").strip()
    return None if licence.lower() in ("", "unknown", UNKNOWN) else licence


def displaced(text: str) -> str:
    """A path from the root without where on this machine it lies; any other text as it is."""
    path = PurePath(text)
    if not path.is_absolute():
        return text
    of_run = len(path.parts) > 3 and path.parts[-2] == "checkpoints"
    return "/".join(path.parts[-3:]) if of_run else path.name


def _front(config: Config) -> Iterable[tuple[str, Any]]:
    """The hub's metadata: key and value. Only what it can look up is named there."""
    licence, family = licence_of(config), config.get("family")
    yield "license", "unknown" if licence is None else HUB_LICENCES.get(licence, "other")
    if licence is not None and licence not in HUB_LICENCES:
        yield "license_name", licence
    yield "library_name", "mclr_fast"
    yield "pipeline_tag", "unconditional-image-generation"
    tags = ["image-generation", "class-conditional", family, config.get("objective")]
    yield "tags", [str(tag) for tag in tags if tag]
    if base := hub_name((config.get("base") or {}).get("model")):
        yield "base_model", base
    name = (config.get("data") or {}).get("name")
    if name in HUB_DATA:
        yield "datasets", [HUB_DATA[name]]
    if name and config.get("metrics"):
        yield "model-index", [{"name": _title(config), "results": list(_results(config, name))}]


def hub_name(model: str | None) -> str | None:
    """USER/NAME where a model's name or address is one on the hub; else None."""
    if model is None:
        return None
    named = re.match(r"hf:([^/@]+/[^/@]+)", model)
    file = published.FILES.get(model)
    at = re.match(r"https://(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/", file.address if file else model)
    found = named or at
    return found[1] if found else None


def _results(config: Config, data: str) -> Iterable[dict[str, Any]]:
    """Metrics as the hub's model index has them."""
    for row in config["metrics"]:
        dataset = {"name": data, "type": HUB_DATA.get(data, data)}
        for protocol, values in row["metrics"].items():
            measured = [
                {"type": metric, "name": f"{protocol} {metric}, {_sampled(row)}", "value": value}
                for metric, value in values.items()
                if value is not None
            ]
            task = {"type": "unconditional-image-generation"}
            yield {"task": task, "dataset": dataset, "metrics": measured}


def _title(config: Config) -> str:
    objective, base = config.get("objective"), (config.get("base") or {}).get("model")
    if objective and base:
        return f"{objective} on {displaced(base)}"
    source = (config.get("source") or {}).get("file")
    return str((objective and f"{objective}, {config.get('family')}") or source or config.get("family"))


def _use(config: Config, model: str) -> str:
    if config.get("family") == "vqvae":
        return "It makes images of tokens and tokens of images; a VAR model's config.json names it."
    lines = [
        'pip install "mclr_fast"',
        f"python -m mclr_fast.sample {model} --seeds 0-15 --outdir samples",
        f"python -m mclr_fast.train --recipe RECIPE --init {model}",
    ]
    return "\n".join(["```", *lines, "```"])


def _facts(config: Config) -> Iterable[tuple[str, str]]:
    """What it is and how it was made: term and description."""
    yield "Network", _network(config)
    yield "Base", _base(config)
    if source := config.get("source"):
        yield "Converted from", _file(source.get("file"), source.get("sha256"))
    yield "Data", _data(config.get("data"))
    yield "Objective", _joined(config.get("settings") or config.get("objective"))
    seen = config.get("images_seen")
    yield "Images seen", UNKNOWN if seen is None else f"{seen:,}"
    yield "Training", _named(config.get("training"))
    if "ema_std" in config:
        yield "Average", f"of relative width {config['ema_std']:g}"
    yield "Sampler", _sampler(config)
    yield "Made with", _named(config.get("versions"))


def _network(config: Config) -> str:
    family = config.get("family")
    if family not in families():
        return _joined(family)
    model = Model.of(config)
    facts, classes = model.facts, model.classes
    labels = f"{facts.num_classes:,} classes" if facts.num_classes else "no classes"
    if classes.said():  # the names, or which were trained
        labels = f"{labels}: {_joined(classes.listed())}"
    null = ", trained without a label too" if config.get("null_label") else ""
    return f"{family}, {' x '.join(map(str, facts.shape))}, {labels}{null}"


def _base(config: Config) -> str:
    base = config.get("base")
    if base:
        return _file(displaced(base["model"]), base.get("sha256"))
    return "none: trained from the start" if config.get("training") else UNKNOWN


def _data(data: Config | None) -> str:
    if not data:
        return UNKNOWN
    classes = f" in {data['classes']:,} classes" if data.get("classes") else ""
    return f"{data['name']}, {data['images']:,} images{classes}, contents {data['contents']}"


def _sampler(config: Config) -> str:
    if config.get("family") not in families():
        return UNKNOWN
    return _named(Model.of(config).sampler_defaults)


def _file(name: str | None, sha256: str | None) -> str:
    file = published.FILES.get(PurePath(name or "").stem)
    about = f" ({file.about})" if file else ""
    return f"{_joined(name)}{about}, SHA-256 {sha256 or UNKNOWN}"


def _named(values: Config | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items()) or UNKNOWN


def _joined(text: Any) -> str:
    """In one cell of a table."""
    return " ".join(str(text or UNKNOWN).split()).replace("|", "\\|")


def _metrics(config: Config) -> str:
    rows = config.get("metrics")
    if not rows:
        return "None were measured when this model was saved." if "training" in config else "Not known."
    lines = ["| protocol | metric | value | samples | seeds | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        first, last = row["seeds"]
        note = "chose this model" if row["chose"] else "chose nothing"
        counted = f"{row['samples']:,} | {first:,} to {last:,} | {note}"
        for protocol, values in row["metrics"].items():
            lines += [
                f"| {protocol} | {metric} | {value:.5g} | {counted} |"
                for metric, value in values.items()
                if value is not None
            ]
    words = "Without guidance. Samples that chose the checkpoint flatter it a little."
    return "\n".join(lines) + f"\n\n{words}"


def _sampled(row: Config) -> str:
    first, last = row["seeds"]
    return f"{row['samples']} samples, seeds {first} to {last}"


def _licence(config: Config) -> str:
    licence = licence_of(config)
    if licence is None:
        return "Not known: neither this model nor its base says under which licence it may be used."
    return LICENCES.get(licence, licence)
