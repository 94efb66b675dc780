"""Recipes by name: functions that return one complete run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial

from mclr_fast.config import RunConfig
from mclr_fast.models.edm2.presets import PRESETS

from .edm2 import edm2, finetune, search
from .fashion32 import GPU, SMALL, fashion32, fashion32_base, fashion32_proof
from .fashion32_table import fashion32_table
from .images import Asked, images, images_base
from .mnist16 import mnist16, mnist16_autoguidance, mnist16_base, mnist16_cfgrl, mnist16_proof
from .mnist16_table import mnist16_table
from .mnist16_var import mnist16_var, mnist16_var_base, mnist16_var_table
from .own_file import is_own_file, own_recipe
from .var import DEPTHS
from .var import finetune as finetune_var

DEFAULT = "mnist16"
FOLLOWING: dict[str, Callable[[Asked | None], RunConfig]] = {"images-base": images_base, "images": images}
"""Recipes whose networks and numbers follow the data and the device."""
FOLLOWED = tuple(option.name for option in fields(Asked))
"""The options that they follow."""

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "mnist16": mnist16,
    "mnist16-table": mnist16_table,
    "mnist16-autoguidance": mnist16_autoguidance,
    "mnist16-base": mnist16_base,
    "mnist16-cfgrl": mnist16_cfgrl,
    "mnist16-proof": mnist16_proof,
    "mnist16-var": mnist16_var,
    "mnist16-var-base": mnist16_var_base,
    "mnist16-var-table": mnist16_var_table,
    **FOLLOWING,
    **{
        f"{size.name}{suffix}": partial(recipe, size)
        for size in (GPU, SMALL)
        for suffix, recipe in (
            ("", fashion32),
            ("-base", fashion32_base),
            ("-proof", fashion32_proof),
            ("-table", fashion32_table),
        )
    },
    "edm2": edm2,
    **{name: partial(finetune, name) for name in PRESETS},
    **{f"{name}-search": partial(search, name) for name in PRESETS},
    **{name: partial(finetune_var, name) for name in DEPTHS},
}


def recipe_lines() -> list[str]:
    """A line for each recipe, its name and what it does: the first of its function's docstring."""
    width = max(map(len, RECIPES))
    functions = {name: getattr(recipe, "func", recipe) for name, recipe in RECIPES.items()}
    return [f"{name:{width}}  {inspect.getdoc(made).splitlines()[0]}" for name, made in functions.items()]


def get_recipe(name: str, asked: Asked | None = None) -> RunConfig:
    """The named run, for what a command line asks; FILE.py:FUNCTION is a user's own, whose code is run.

    ValueError with the nearest names for an unknown one.

    Errors    ValueError, OSError too for data that cannot be read, of a recipe that follows them.
    """
    if is_own_file(name):
        return own_recipe(name)
    if name not in RECIPES:
        nearest = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3) or list(RECIPES)
        raise ValueError(f"no recipe {name!r}; nearest: {', '.join(nearest)}.")
    return FOLLOWING[name](asked) if name in FOLLOWING else RECIPES[name]()
