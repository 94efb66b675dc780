"""--dry-run: the resolved run in words and numbers, with everything checked that needs no compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset, open_dataset
from mclr_fast.data.sources.class_counts import class_counts
from mclr_fast.methods.need_checks import NeedChecks
from mclr_fast.models import Model, describe, model_from_config, read_config
from mclr_fast.models.published import Published, to_download
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.launch import launched
from mclr_fast.runtime.ranks import choose_device
from mclr_fast.training.memory import StepMemory
from mclr_fast.training.memory_table import check_memory, memory_lines
from mclr_fast.training.optimizer import check_optimizer

from .checks import check_fit, check_options, data_notes, method_of
from .claim import check_outdir, flat
from .cost import cost_lines, planned_cost
from .disk_use import disk_lines
from .fingerprints import fingerprints
from .judging import judging_protocols, run_guide, run_panel
from .marks import make_marks
from .proof import check_comparable
from .timing import time_run, timing_lines


def dry_run(config: RunConfig) -> str:
    """Lines to print. RunError for what a run would refuse, as far as options, headers and folders show it.

    Nothing is downloaded: a model that would be is told of, and taken for what the recipe expects of it.
    Files that are not named yet (`check_named`) are done without.
    """
    place = launched()
    num_ranks, device = place.size, choose_device(config.device, place)
    check_options(config, num_ranks, need_files=False)
    check_optimizer(config.train.optimizer, device)
    options, asked = flat(config), config
    try:
        downloads = _downloads(config)
        config = _without(config, downloads)
        description = read_config(config.init) if config.init else describe(config.net, config.family)
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
    also = f", {method.entry.words}" if method.entry.words else ""
    row = f"{train.batch_size} images x {columns} columns{also}"
    memory = StepMemory(config, model)
    check_memory(memory, num_ranks, config.gpu_memory_gib)
    lines = [
        f"recipe          {config.recipe}" + (f"  ({config.note})" if config.note else ""),
        f"objective       {objective.objective}: {method.objective}",
        f"network         {description['family']}, {sum(p.numel() for p in net.parameters()):,} parameters",
        *_data_lines(config, dataset),
        f"steps           {num_steps:,} of {train.batch_size} images, {train.duration:,} images in all",
        f"evaluations     {evaluations:,} a step = {row}",
        f"micro-batches   {-(-own // micro)} a rank of at most {micro} evaluations, {num_ranks} rank(s)",
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


MODELS = ("reference", "negatives_model")  # options of the objective that name one, beside --init


def _downloads(config: RunConfig) -> dict[str, Published]:
    """Of the options that name a model or statistics, those whose file a run would download first."""
    named = {"init": config.init, **{name: getattr(config.objective, name) for name in MODELS}}
    references: Sequence[str] = ()
    if config.is_judged:
        named["gnet"], references = config.eval.gnet, config.eval.ref
    found = {name: to_download(text) for name, text in named.items()}
    found |= {f"ref {i}": to_download(text, "statistics") for i, text in enumerate(references)}
    return {name: file for name, file in found.items() if file is not None}


def _without(config: RunConfig, absent: Mapping[str, Published]) -> RunConfig:
    """The run without these options: what cannot be read yet is not checked."""
    objective = replace(config.objective, **{name: None for name in MODELS if name in absent})
    options = replace(
        config.eval,
        gnet=None if "gnet" in absent else config.eval.gnet,
        ref=tuple(text for i, text in enumerate(config.eval.ref) if f"ref {i}" not in absent),
    )
    init = None if "init" in absent else config.init
    return replace(config, objective=objective, eval=options, init=init)
