"""What is checked before anything expensive starts."""

from __future__ import annotations

from typing import Any

import torch

from mclr_fast.config import RunConfig, TrainConfig
from mclr_fast.data import Dataset
from mclr_fast.data.order import expected_one_class
from mclr_fast.methods.registry import METHODS, Method, make_method, option_named, options_of
from mclr_fast.models import Model
from mclr_fast.objectives import SettingError
from mclr_fast.runtime.device.precision import choose_dtype
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.options import option_of
from mclr_fast.runtime.trackers import check_trackers
from mclr_fast.training.averages import PlainEMA, PowerFunctionEMA
from mclr_fast.training.optimizer import apex_fused_adam

from .ranges import check_numbers

GREY_OR_RGB = (1, 3)  # channels of pixels; latents have more
PIXELS_OF_LATENT = 8  # of stabilityai/sd-vae-ft-mse, EDM2's


def net_overrides(train: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What a run sets of the networks it loads: not their shapes."""
    return {"dtype": choose_dtype(train.precision, device), "dropout": train.dropout}


def check_fit(config: RunConfig, dataset: Dataset, model: Model) -> None:
    """RunError unless data, network and options go together."""
    for name, value in (config.net or {}).items() if config.init else ():
        if model.arguments.get(name) != value:
            raise RunError(
                f"--init {config.init} is not a base of recipe {config.recipe}: its {name} is "
                f"{model.arguments.get(name)}, the recipe's {value}."
            )
    codec, facts = model.codec(dataset), model.facts
    if codec.shape != facts.shape:
        raise RunError(
            f"the images of --data {config.data} are {_times(codec.shape)}, those of {_network(config)} "
            f"{_times(facts.shape)}: {_fitting(codec.shape, facts.shape)}, or train a base for them "
            "(--recipe images-base)."
        )
    if config.train.flip and not codec.mirrors:
        raise RunError(
            f"--flip cannot mirror the latents of --data {config.data}: mirror the images before they are "
            "encoded (python -m mclr_fast.prepare --latents --mirror), and leave out --flip."
        )
    labels = dataset.labels
    objective = config.objective.objective
    if facts.num_classes == 0 and objective != "denoising":
        raise RunError(
            f"--init {config.init} has no classes (label_dim 0), which {objective} needs: give a "
            "class-conditional base, or train this one with --objective denoising."
        )
    if facts.num_classes and (labels.min() < 0 or labels.max() >= facts.num_classes):
        raise RunError(
            f"the labels of --data {config.data} lie in [{labels.min()}, {labels.max()}]; {_network(config)} "
            f"knows classes 0 to {facts.num_classes - 1}: leave the others out, or train a base for them "
            "(--recipe images-base)."
        )
    if not contrasts_others(config):
        return
    if config.train.batch_size < 2:
        raise RunError(
            f"--batch-size {config.train.batch_size} leaves an image without others to be contrasted with: "
            f"{config.objective.objective} pairs those of a minibatch; raise it to 2 or more."
        )
    if (labels == labels[0]).all():
        raise RunError(
            f"--data {config.data} has 1 distinct class, {dataset.class_names[labels[0]]} ({len(labels):,} "
            f"images); {config.objective.objective} contrasts at least 2: use data of more classes, or "
            "another --objective (denoising contrasts none)."
        )


def contrasts_others(config: RunConfig) -> bool:
    """Whether a row's negatives are of other classes than its own."""
    return method_of(config).columns.labels == "others" and not config.objective.include_own


def data_notes(config: RunConfig, dataset: Dataset) -> list[str]:
    """What is to be said of the data before they are trained on, in lines."""
    train = config.train
    num_steps = -(-train.duration // train.batch_size)
    alone = expected_one_class(dataset.labels, train.batch_size, num_steps) if contrasts_others(config) else 0
    if alone < 0.5:
        return dataset.notes
    return [
        *dataset.notes,
        f"about {alone:,.0f} of {num_steps:,} minibatches of {train.batch_size} hold one class alone: their "
        "negatives are drawn from all of the data, not from the minibatch",
    ]


def _network(config: RunConfig) -> str:
    return f"--init {config.init}" if config.init else "the network"


def _fitting(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """How `prepare` makes images of the wanted shape, in words. Shapes: of x, (C, H, W) or (L,)."""
    if len(shape) != len(wanted) or len(wanted) != 3:
        return "prepare the data for that network (python -m mclr_fast.prepare)"
    (channels, *size), (wanted_channels, *wanted_size) = shape, wanted
    latents = wanted_channels not in GREY_OR_RGB
    options = ["--latents VAE"] if latents and channels in GREY_OR_RGB else []
    if size != wanted_size or options:
        options.append(f"--resolution {wanted_size[0] * (PIXELS_OF_LATENT if latents else 1)}")
    if channels != wanted_channels and not latents:
        options.append("--grey" if wanted_channels == 1 else "pixels in RGB")
    return f"prepare the data with {' and '.join(options)}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def method_of(config: RunConfig) -> Method:
    """What the run's objective is made of. RunError for a setting out of its range."""
    try:
        return make_method(config.objective)
    except SettingError as error:
        option = option_of(option_named(config.objective.objective, error.name))
        raise RunError(f"--objective {config.objective.objective}: {option} {error.fault}") from error


def check_used(config: RunConfig, recipe: RunConfig) -> None:
    """RunError for an option of the objective, unlike the recipe's, that nothing in the run would read."""
    trained = list(config.table["grid"]) if config.table else [config.objective.objective]
    if config.eval.control != "none":
        trained.append("denoising")
    used = set().union(*map(options_of, trained))
    for name, value in vars(config.objective).items():
        if name in used or value == getattr(recipe.objective, name):
            continue
        users = ", ".join(objective for objective in METHODS if name in options_of(objective))
        raise RunError(
            f"{option_of(name)} {value} is not an option of {', '.join(trained)} but of {users}: "
            "leave it out, or choose another --objective."
        )


def check_options(config: RunConfig, num_ranks: int, *, need_files: bool = True) -> None:
    """RunError for numbers that cannot be meant, or (need_files) a file that is still to be named."""
    train, evaluation, objective = config.train, config.eval, config.objective
    check_numbers(config)
    check_trackers(config)
    try:
        PlainEMA({}, train.ema_beta) if train.ema == "plain" else PowerFunctionEMA({}, train.ema_stds)
    except ValueError as error:
        raise RunError(f"--ema {train.ema}: {error}") from None
    if train.ema == "plain" and train.ema_snapshot_every:
        raise RunError("--ema-snapshot-every keeps power-function averages: add --ema power.")
    if train.optimizer == "apex":
        apex_fused_adam()
    if evaluation.patience > 0 and not config.is_judged:
        raise RunError(
            f"--patience {evaluation.patience} waits for evaluations, and this run has none: set "
            "--eval-every in a recipe that has a protocol, or leave out --patience."
        )
    if config.protocol is None and evaluation.eval_every > 0:
        raise RunError(
            f"--eval-every {evaluation.eval_every} has nothing to judge by: name a --protocol (fid, ...) "
            "and --ref, or leave --eval-every out."
        )
    method = method_of(config)
    if not 0 <= method.label_dropout < 1:
        raise RunError(f"--label-dropout must be at least 0 and below 1, not {method.label_dropout}.")
    num_columns = len(method.columns.kinds(objective.num_negatives))
    if not method.separable and 0 < train.micro_batch < num_columns:
        raise RunError(
            f"--micro-batch {train.micro_batch} is smaller than a row of {objective.objective}, R = "
            f"{num_columns} evaluations, which must stay together: raise it to {num_columns} or more."
        )
    if train.batch_size < num_ranks:
        raise RunError(
            f"--batch-size {train.batch_size} leaves some of {num_ranks} ranks without an image: "
            "raise it or use fewer ranks."
        )
    if need_files:
        check_named(config)


def check_named(config: RunConfig) -> None:
    """RunError for a file that a run needs and that no option names."""
    objective, method = config.objective, method_of(config)
    fine_tunes = objective.objective != "denoising"
    if config.data is None or (config.init is None and fine_tunes):
        raise RunError(
            f"recipe {config.recipe} needs --data (an EDM2 zip or folder) and --init (a model folder "
            f"to fine-tune); got --data {config.data} --init {config.init}."
        )
    own_samples = objective.negatives is None and objective.negatives_model is None
    if method.chooses_positives and objective.positives == "base" and own_samples:
        raise RunError(
            "--positives base with the base's own samples as negatives contrasts nothing: give "
            "--negatives-model (an earlier, weaker snapshot) or --negatives."
        )
