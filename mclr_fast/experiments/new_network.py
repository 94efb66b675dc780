"""What a command line says of a network that begins with a run: its size and any of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mclr_fast.config import RunConfig
from mclr_fast.models import Model, describe, get_family
from mclr_fast.models.arguments import parse_arguments
from mclr_fast.runtime.errors import RunError, one_line


def with_network_options(config: RunConfig, recipe: RunConfig) -> RunConfig:
    """The run with --net's arguments in its network. recipe: the same without the command line's changes.

    Errors    ValueError, one line: arguments that the family's networks do not have; --net or --size where
              the network is --init's, --size in a recipe that has a network of its own.
    """
    said = f"--net {config.net_options[0]}" if config.net_options else ""
    if config.size is not None and not (recipe.size or config.net_options):
        said = f"--size {config.size}"
    if config.init is not None and said:
        option = said.split()[0]
        raise ValueError(
            f"{said}: the run begins with --init {config.init}, whose network is its own: leave {option} "
            "out, or train a new one (--recipe images-base without --init)."
        )
    if config.size != recipe.size:
        raise ValueError(
            f"--size {config.size} is of recipe images-base; in {recipe.recipe} --net "
            "sets a new network's arguments one by one."
        )
    if not config.net_options or recipe.net is None:  # of the latter `check_network` says what is missing
        return config
    found = parse_arguments(config.net_options, get_family(config.family))
    config = replace(config, net={**recipe.net, **found}, net_options=())
    _try(config, recipe, found)
    return config


def _try(config: RunConfig, recipe: RunConfig, said: Mapping[str, Any]) -> None:
    """ValueError unless a step can be made of such a network, as one of the recipe's can; without numbers."""
    from mclr_fast.training.memory import StepMemory

    try:
        step = StepMemory(config, Model.of(describe(config.net, config.family)))
        _ = step.flops  # which makes one
        if empty := [name for name, parameter in step.net.named_parameters() if not parameter.numel()]:
            raise ValueError(f"{empty[0]} has no number in it")
    except Exception as error:  # whatever a constructor or a layer makes of widths that do not go together
        options = " ".join(f"{name}={value}" for name, value in said.items())
        usual = ", ".join(f"{name} {recipe.net[name]}" for name in said if name in recipe.net)
        raise ValueError(
            f"--net {options}: no such network can be trained ({one_line(error).rstrip('.')})"
            + (f"; recipe {recipe.recipe} has {usual}." if usual else ".")
        ) from error


def check_network(config: RunConfig) -> None:
    """RunError where there is no network to begin with."""
    if config.init is None and config.net is None:
        of_base = config.objective.objective == "denoising" and config.data is None
        missing = "--data, which its network is made for" if of_base else "--init (a model folder)"
        raise RunError(f"recipe {config.recipe} needs {missing}.")


def length_words(config: RunConfig, num_images: int) -> str:
    """How long a run is and with which numbers, chosen by its recipe or its user."""
    train = config.train
    times = train.duration / num_images
    return (
        f"{train.duration:,} images, each {times:,.1f} times, in steps of {train.batch_size}, learning rate "
        f"{train.lr:g}"
    )
