"""--dry-run: the resolved run in words and numbers, with everything checked that needs no compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset, open_dataset
from mclr_fast.data.sources.class_counts import class_counts
from mclr_fast.evaluation.protocols import is_trained
from mclr_fast.methods.need_checks import NeedChecks
from mclr_fast.models import Model, describe, model_from_config, read_config
from mclr_fast.models.storage.on_hub import HubModel
from mclr_fast.models.storage.published import Published, to_download
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.launch import launched
from mclr_fast.runtime.process.ranks import choose_device
from mclr_fast.training.memory import StepMemory
from mclr_fast.training.optimizer import check_optimizer

from ..arms.marks import make_marks
from ..checks import check_fit, check_options, data_notes, method_of
from ..identity.claim import check_outdir, flat, whole_of
from ..identity.fingerprints import fingerprints
from ..judging import judging_protocols, run_guide, run_panel
from ..new_network import check_network
from ..proof import check_comparable
from .cost import cost_lines, planned_cost
from .disk_use import disk_lines
from .memory_table import check_memory, memory_lines
from .timing import time_run, timing_lines


def dry_run(config: RunConfig) -> str:
    """Lines to print. RunError for what a run would refuse, as far as options, headers and folders show it.

    Nothing large is downloaded: a model that would be is told of, and taken for what its config.json on the
    hub says, or else for what the recipe expects of it. Files that are not named yet (`check_named`) are done
    without.
    """
    place = launched()
    num_ranks, device = place.size, choose_device(config.device, place)
    check_options(config, num_ranks, need_files=False)
    check_optimizer(config.train.optimizer, device)
    options, asked = flat(config), config
    try:
        downloads = _downloads(config)
        check_network(config)
        description = _described(config, downloads.get("init"))
        config = _without(config, downloads)
        model = Model.of(description)
        beside = {name: to_download(name) for name in model.family.beside(model.arguments)}
        downloads |= {name: file for name, file in beside.items() if file is not None}
        with torch.device("meta"):
            net = model_from_config(description)
        dataset = open_dataset(config.data) if config.data else None
        if dataset is not None:
            check_fit(config, dataset, model)
        NeedChecks(config, description, dataset).check()
        if config.is_judged:
            judging_protocols(config)
            if dataset is not None:
                run_panel(config, dataset)
            run_guide(config, model)
        if asked.proof_seeds and asked.init and not asked.table:
            check_comparable(asked)
        check_outdir(config.folder, asked, lambda: fingerprints(config, dataset), may_grow=not config.table)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise RunError(str(error)) from error
    train, objective = config.train, config.objective
    method = method_of(config)
    columns = len(method.columns.kinds(objective.num_negatives))
    evaluations = train.batch_size * columns
    own = -(-evaluations // num_ranks)
    micro = min(train.micro_batch or own, own)
    num_steps = -(-train.duration // train.batch_size)
    every = config.eval.eval_every
    marks = [m.images_seen for m in make_marks(train, evaluate_every=every) if m.evaluate] if every else []
    times = "" if dataset is None else f" ({train.duration / len(dataset):,.1f} times the data)"
    memory = StepMemory(config, model, None if dataset is None else len(dataset))
    row = f"{train.batch_size} images x {columns} columns{_beside(memory)}"
    check_memory(memory, num_ranks, config.gpu_memory_gib)
    lines = [
        f"recipe          {config.recipe}" + (f"  ({config.note})" if config.note else ""),
        f"objective       {objective.objective}: {method.objective}",
        f"network         {description['family']}, {sum(p.numel() for p in net.parameters()):,} parameters"
        + (f", size {config.size}" if config.size else ""),
        *_data_lines(config, dataset),
        f"steps           {num_steps:,} of {train.batch_size} images, {train.duration:,} in all{times}",
        f"learning rate   {train.lr:g} ({train.lr_schedule})",
        f"evaluations     {evaluations:,} a step = {row}",
        f"micro-batches   {-(-own // micro)} a rank of at most {micro} evaluations, {num_ranks} rank(s)",
        *_judged_lines(config, dataset),
        f"evaluated at    {', '.join(f'{mark:,}' for mark in marks) or 'never'}",
        f"folder          {config.folder}" + (" (exists: resumes)" if config.folder.exists() else ""),
        *(f"downloads       {file}, to {file.place}" for file in dict.fromkeys(downloads.values())),
        "",
        *cost_lines(config, memory),
        *_hours(config, memory, device, num_ranks, needs=bool(beside.keys() & downloads.keys())),
        *disk_lines(config, memory),
        *memory_lines(memory, num_ranks, config.gpu_memory_gib),
        "",
        "options",
    ]
    return "\n".join(lines + [f"  {name:28} {value}" for name, value in options.items()])


def _beside(memory: StepMemory) -> str:
    """What is evaluated without gradients beside a step's columns."""
    if memory.keeps_own_energies:
        return (
            f", and {memory.num_columns - 1} an image of the reference, whose own-label energies are made "
            f"once ({memory.num_made:,} in all)"
        )
    words = memory.method.entry.words
    return f", {words}" if words else ""


def _hours(
    config: RunConfig, step: StepMemory, device: torch.device, num_ranks: int, *, needs: bool
) -> Iterator[str]:
    """What the run takes here. needs: whether something that samples are made with is still to come."""
    if config.time_steps == "off":
        return
    timing = time_run(config, step, device, samples=not needs)
    cost, _ = planned_cost(config, step)
    yield from timing_lines(config, step, cost, timing, device, num_ranks)


def _data_lines(config: RunConfig, dataset: Dataset | None) -> list[str]:
    """What its classes are called, and how it was read."""
    if dataset is None:
        return []
    counts = class_counts(dataset.labels, dataset.class_names)
    return [
        f"data            {len(dataset):,} images, {counts}",
        *(f"note            {n}" for n in data_notes(config, dataset)),
    ]


def _judged_lines(config: RunConfig, dataset: Dataset | None) -> list[str]:
    """Of a classifier that is trained to judge: on what, and whether it is there."""
    if dataset is None or not config.is_judged or not is_trained(judging_protocols(config)):
        return []
    return [f"judged by       {run_panel(config, dataset).plan.words(whole_of(config.folder))}"]


MODELS = ("reference", "negatives_model")  # options of the objective that name one, beside --init


def _downloads(config: RunConfig) -> dict[str, Published | HubModel]:
    """Of the options that name a model or statistics, those whose file a run would download first."""
    named = {"init": config.init, **{name: getattr(config.objective, name) for name in MODELS}}
    references: Sequence[str] = ()
    if config.is_judged:
        named["gnet"], references = config.eval.gnet, config.eval.ref
    found = {name: to_download(text) for name, text in named.items()}
    found |= {f"ref {i}": to_download(text, "statistics") for i, text in enumerate(references)}
    return {name: file for name, file in found.items() if file is not None}


def _described(config: RunConfig, absent: Published | HubModel | None) -> dict[str, Any]:
    """The config.json of the network to train: --init's, of the hub too, else what the recipe expects."""
    if isinstance(absent, HubModel):
        return absent.description()
    if absent is None and config.init:
        return read_config(config.init)
    if config.net is None:
        raise RunError(
            f"--init {absent} is not here yet, and recipe {config.recipe} does not say what network it is: "
            "take the recipe of its preset, or download it first."
        )
    return describe(config.net, config.family)


def _without(config: RunConfig, absent: Mapping[str, Published | HubModel]) -> RunConfig:
    """The run without these options: what cannot be read yet is not checked."""
    objective = replace(config.objective, **{name: None for name in MODELS if name in absent})
    options = replace(
        config.eval,
        gnet=None if "gnet" in absent else config.eval.gnet,
        ref=tuple(text for i, text in enumerate(config.eval.ref) if f"ref {i}" not in absent),
    )
    init = None if "init" in absent else config.init
    return replace(config, objective=objective, eval=options, init=init)
