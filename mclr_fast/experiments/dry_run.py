"""--dry-run: the resolved run in words and numbers, with everything checked that needs no compute."""

from __future__ import annotations

import os

import torch

from mclr_fast.config import RunConfig
from mclr_fast.data import open_dataset
from mclr_fast.methods.columns import num_columns
from mclr_fast.methods.need_checks import AidChecks
from mclr_fast.models import describe, model_from_config, read_config
from mclr_fast.runtime.errors import RunError
from mclr_fast.training.memory import StepMemory
from mclr_fast.training.memory_table import check_memory, memory_lines

from .checks import check_fit, check_options, method_of
from .claim import flat
from .marks import make_marks


def dry_run(config: RunConfig) -> str:
    """Lines to print. RunError for what a run would refuse, as far as options and headers show it."""
    num_ranks = int(os.environ.get("WORLD_SIZE", 1))
    check_options(config, num_ranks, need_files=False)
    try:
        model = read_config(config.init) if config.init else describe(config.net)
        with torch.device("meta"):
            net = model_from_config(model)
        dataset = open_dataset(config.data) if config.data else None
        if dataset is not None:
            check_fit(config, dataset, model["net"])
        AidChecks(config, model, dataset).check()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise RunError(str(error)) from error
    train, objective = config.train, config.objective
    method = method_of(config)
    columns = num_columns(method.tuples, objective.num_negatives)
    evaluations = train.batch_size * columns
    own = -(-evaluations // num_ranks)
    micro = min(train.micro_batch or own, own)
    num_steps = -(-train.duration // train.batch_size)
    every = config.eval.eval_every
    marks = [m.images_seen for m in make_marks(train, evaluate_every=every) if m.evaluate] if every else []
    row = f"{train.batch_size} images x {columns} columns{method.beside}"
    memory = StepMemory(config, model["net"])
    check_memory(memory, num_ranks, config.gpu_memory_gib)
    lines = [
        f"recipe          {config.recipe}" + (f"  ({config.note})" if config.note else ""),
        f"objective       {objective.objective}: {method.objective}",
        f"network         {model['family']}, {sum(p.numel() for p in net.parameters()):,} parameters",
        f"steps           {num_steps:,} of {train.batch_size} images, {train.duration:,} images in all",
        f"evaluations     {evaluations:,} a step = {row}",
        f"micro-batches   {-(-own // micro)} a rank of at most {micro} evaluations, {num_ranks} rank(s)",
        f"evaluated at    {', '.join(f'{mark:,}' for mark in marks) or 'never'}",
        f"folder          {config.folder}" + (" (exists: resumes)" if config.folder.exists() else ""),
        "",
        *memory_lines(memory, num_ranks, config.gpu_memory_gib),
        "",
        "options",
    ]
    return "\n".join(lines + [f"  {name:28} {value}" for name, value in flat(config).items()])
