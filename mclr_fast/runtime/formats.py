"""Formats of the files that a run leaves, by number, and how older ones are read.

Every function takes the parsed JSON of any known format and gives today's. A file without a number is of
format 1, whose rows said in their names alone what was scored: names are read for that here, and nowhere
else.
"""

from __future__ import annotations

import re
from typing import Any

from .errors import RunError

CONFIG_FORMAT = SUMMARY_FORMAT = EVALUATION_FORMAT = CFG_FORMAT = GRID_FORMAT = STATE_FORMAT = 2
IDENTITY_FORMAT = 1
CLASSIFIER_FORMAT = 1  # of a trained classifier that judges, evaluation/own_classifier.py
STATISTICS_FORMAT = 1  # of a reference's .npz, evaluation/statistics_files.py

# Format 1 had one protocol, and these metrics at the top of a row.
FORMAT_1_PROTOCOL = "mnist16"
FORMAT_1_METRICS = ("fd", "fd_heldout", "is", "precision", "recall", "accuracy")
# The options that config.json and a state's hash had in format 1.
_FORMAT_1_GROUPS = {
    "": ("recipe", "seed", "data", "init", "protocol", "net", "note", "proof_seeds", "table", "proof_samples",
         "proof_first_seed"),
    "objective.": ("objective", "num_negatives", "dsm_weight", "form", "include_own", "beta", "lambda_coef",
                   "alpha", "eta", "guidance_weight", "pairing", "reference", "refresh_every", "negatives",
                   "negatives_model", "positives", "best_share", "model_samples", "classifier_steps",
                   "classifier", "label_dropout", "P_mean", "P_std"),
    "train.": ("duration", "batch_size", "lr", "lr_schedule", "warmup_images", "ref_batches", "betas", "ema",
               "ema_beta", "ema_stds", "dropout", "flip", "precision", "optimizer", "stop_factor",
               "skip_bad_batches"),
    "eval.": ("num_steps", "sigma_min", "sigma_max", "eval_every", "num_samples", "first_seed", "neighbors",
              "control", "cfg_scales", "grid_noises", "patience"),
}  # fmt: skip
# What the embedded runs' models did not say before models said how they are sampled.
_MNIST16_MODEL = {
    "null_label": True,
    "sampler": {"num_steps": 12, "sigma_min": 0.002, "sigma_max": 40.0, "classes": "in turn"},
}
FORMAT_1_OPTIONS = frozenset(group + name for group, names in _FORMAT_1_GROUPS.items() for name in names)
Content = dict[str, Any]


def number(content: Content, latest: int, file: object) -> int:
    """The format of `file`. RunError when it is later than `latest`, the latest that this version knows."""
    found = content.get("format", 1)
    if not isinstance(found, int) or not 1 <= found <= latest:
        raise RunError(
            f"{file} is of format {found}; this mclr_fast reads formats 1 to {latest}: upgrade mclr_fast."
        )
    return found


def config(content: Content, file: object = "config.json") -> Content:
    """A run's options by name, "group.name" -> value; those of later versions are missing in older files."""
    number(content, CONFIG_FORMAT, file)
    return {name: value for name, value in content.items() if name != "format"}


def identity(content: Content, file: object = "identity.json") -> Content:
    """What a run began with: younger than format 1 of the other files."""
    number(content, IDENTITY_FORMAT, file)
    return content


def model(content: Content) -> Content:
    """A model's config.json, which has no number.

    Older ones do not say what a network was fine-tuned from, how it is sampled, or whether it knows no
    label. Of the embedded runs that is known: they began with a base that was trained with label dropout.
    """
    says = "sampler" in content or "base" in content
    of_mnist16 = content.get("family") == "edm2" and str(content.get("made_by")).startswith("mnist16")
    return content if says or not of_mnist16 else {**_MNIST16_MODEL, **content}


def state_marker(content: Content, file: object = "a state's marker") -> Content:
    """What marks a training's state as complete: formats 1 and 2 have the same fields."""
    number(content, STATE_FORMAT, file)
    return {**content, "format": STATE_FORMAT}


def evaluation_row(meta: Content, objective: str, file: object = "an evaluation") -> Content:
    """The row of a kept evaluation, for `Row.from_json`. objective: what its run trains with."""
    if number(meta, EVALUATION_FORMAT, file) == 1:
        return _row(meta, objective)
    return {name: value for name, value in meta.items() if name != "format"}


def cfg(content: Content, file: object = "cfg.json") -> Content:
    """cfg.json: a base's rows under guidance, the model and the protocol that they belong to."""
    if number(content, CFG_FORMAT, file) == 1:
        return {**content, "format": CFG_FORMAT, "rows": [_row(row, "") for row in content["rows"]]}
    return content


def grid(about: Content, names: list[str], objective: str, file: object = "grid.npz") -> list[Content]:
    """What each array of grid.npz is; format 1 had only their names, later ones say it beside them."""
    if number(about, GRID_FORMAT, file) > 1:
        return about["entries"]
    entries = []
    for name in names:
        trained = None if _guidance(name) is not None else re.fullmatch(r"(.+)-(\d+)", name)
        name, seen = (trained[1], int(trained[2])) if trained else (name, 0)
        entries.append({"name": name, "images_seen": seen, **_meaning(name, objective)})
    return entries


def judged(content: Content, file: object = "judged.json") -> Content:
    """A table's final run: the row that a judge gave its best checkpoint, and its own summary."""
    if number(content, SUMMARY_FORMAT, file) == 1:
        row = _row(content["judged"], content["summary"]["objective"])
        content = {**content, "format": SUMMARY_FORMAT, "judged": row}
    return {**content, "summary": summary(content["summary"], file)}


def summary(content: Content, file: object = "summary.json") -> Content:
    """The summary of a run, a proof or a table: "kind" says which."""
    if number(content, SUMMARY_FORMAT, file) > 1:
        return {**content, "protocol": protocol(content["protocol"])}
    objective = content["objective"]
    if objective == "table":
        return _table(content)
    missing = {
        "settings": "",
        "seed": 0,
        "images_seen": 0,
        "seconds": 0.0,
        "turned_at": None,
        "stopped": None,
        "skipped_batches": {},
        "classifier": None,
        "grid_seeds": None,
        "protocol": None,
        "versions": {},
    }
    best = content.get("best")
    return {
        **missing,
        **content,
        "format": SUMMARY_FORMAT,
        "kind": "proof" if content.get("proof") else "run",
        "rows": [_row(row, objective) for row in content["rows"]],
        "best": best and _row(best, objective),
        "comparison": content.get("comparison") or {},
        "protocol": protocol(content.get("protocol")),
        "proof": [_seed(entry, objective) for entry in content.get("proof") or ()],
    }


def protocol(said: Content | None) -> Content | None:
    """What a summary's rows were measured with; before there were several protocols, it was the digits'."""
    if said is None or "protocols" in said:
        return said
    about = {"k": said["k"], "reference": {"source": said["reference"]}}
    kept = {name: value for name, value in said.items() if name not in ("reference", "k")}
    return {**kept, "name": FORMAT_1_PROTOCOL, "classes": "in turn", "protocols": {FORMAT_1_PROTOCOL: about}}


def protocol_name(said: str) -> str:
    """A protocol's name in a row; the digits' had its extractor's once."""
    return FORMAT_1_PROTOCOL if said == "mnist16-classifier" else said


def _seed(entry: Content, objective: str) -> Content:
    """A proof's result of one seed."""
    rows = {name: _row(entry[name], objective) for name in ("base", "denoising", objective)}
    return {**entry, **rows}


def _table(content: Content) -> Content:
    """A table's summary: its keys are those of format 1, its rows are not."""
    methods = {
        name: {
            **method,
            "grid": [_tried(entry, name) for entry in method["grid"]],
            "runs": [_final(entry, name) for entry in method["runs"]],
        }
        for name, method in content["methods"].items()
    }
    ablations = [
        {**ablation, "runs": [_tried(entry, ablation["objective"]) for entry in ablation["runs"]]}
        for ablation in content["ablations"]
    ]
    return {
        **content,
        "format": SUMMARY_FORMAT,
        "kind": "table",
        "rows": [_row(row, "") for row in content["rows"]],
        "guided": [_row(row, "") for row in content["guided"]],
        "protocol": protocol(content["protocol"]),
        "methods": methods,
        "ablations": ablations,
        "best": _row(content["best"], ""),
    }


def _tried(entry: Content, objective: str) -> Content:
    """A table's run with short evaluations."""
    return {"stopped": None, **entry, "rows": [_row(row, objective) for row in entry["rows"]]}


def _final(entry: Content, objective: str) -> Content:
    """A table's run with the full evaluations."""
    curve = [_row(row, objective) for row in entry["curve"]]
    return {"stopped": None, **entry, "judged": _row(entry["judged"], objective), "curve": curve}


def _row(row: Content, objective: str) -> Content:
    """A row of format 1: what it is was in its name, its metrics were of the one protocol."""
    metrics = {name: row.get(name) for name in FORMAT_1_METRICS}
    counts = {name: row.get(name) or 0 for name in ("images_seen", "nfe", "samples")}
    time = {"seconds": row["seconds"]} if "seconds" in row else {}
    return {
        "name": row["name"],
        **_meaning(row["name"], objective),
        **counts,
        "chosen_by": FORMAT_1_PROTOCOL,
        "metrics": {FORMAT_1_PROTOCOL: metrics},
        **time,
    }


def _meaning(name: str, objective: str) -> Content:
    """What a name of format 1 says: kind, and guidance with the strength that is none."""
    guidance = _guidance(name)
    if guidance is not None:
        return {"kind": "guidance", "guidance": guidance, "unguided": 0.0 if name.startswith("var") else 1.0}
    if name in ("real", "base"):
        kind = name
    else:
        is_control = re.fullmatch(r"denoising(-seed\d+)?", name) and objective != "denoising"
        kind = "control" if is_control else "trained"
    return {"kind": kind, "guidance": 1.0, "unguided": 1.0}


def _guidance(name: str) -> float | None:
    """The strength in cfg-<g> and varcfg-<t>; None for other names."""
    match = re.fullmatch(r"(?:var)?cfg-([-+.\de]+)", name)
    return float(match[1]) if match else None
