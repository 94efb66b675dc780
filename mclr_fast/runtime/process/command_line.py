"""A door's command line, parsed: help and mistakes name a command that exists, once a node."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from ..errors import RunError
from .launch import is_first_of_node

Config = TypeVar("Config")


def parsed(
    kind: type[Config], arguments: Sequence[str], module: str, description: str, **more: Any
) -> Config:
    """The configuration that the arguments give; --help and mistakes end the process, as argparse's do.

    Args: module: `python -m MODULE` is the door; more: of `tyro.cli`.
    """
    try:
        speaks = is_first_of_node()
    except RunError:  # the ranks will say what is wrong with their places
        speaks = True
    try:
        return tyro.cli(
            kind,
            args=arguments,
            prog=f"python -m {module}",
            description=description,
            console_outputs=speaks,
            **more,
        )
    except SystemExit as end:
        if end.code and "TORCHELASTIC_RUN_ID" in os.environ:
            from .last_words import tell_torchrun  # brings torch, which --help does without

            tell_torchrun("the options were not understood: what is wrong with them stands above.")
        raise
