"""Recipes in a user's own Python file: `--recipe ./mine.py:run`. The file's code is run."""

from __future__ import annotations

import difflib
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mclr_fast.config import RunConfig
from mclr_fast.runtime.errors import one_line

FILE = re.compile(r"(.+\.py)(?::(.*))?")
USUAL = "run"  # the function that leaves a recipe with its file's name
T = TypeVar("T")


def is_own_file(name: str) -> bool:
    """Whether a recipe's name is FILE.py:FUNCTION."""
    return FILE.fullmatch(name) is not None


def own_recipe(name: str) -> RunConfig:
    """The run that FUNCTION of FILE.py returns, called FILE, or FILE-FUNCTION where that is not `run`.

    Modules beside the file can be imported by it.
    Errors    ValueError, one line, with the file's line where the mistake is in it: no such file or function,
              an exception, something else than a RunConfig.
    """
    file, function = FILE.fullmatch(name).groups()
    path = Path(file)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], cutoff=0.5)
        beside = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"--recipe {name}: there is no file {file}{beside}.")
    module = _guarded(path, name, lambda: _executed(path))
    made = getattr(module, function or "", None)
    if not callable(made):
        own = [
            n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        ]
        functions = [n for n in own if callable(getattr(module, n))]
        raise ValueError(_no_function(file, function, functions))
    run = _guarded(path, name, made)
    if not isinstance(run, RunConfig):
        raise ValueError(
            f"--recipe {name}: {function} returned {_kind(run)}, not a mclr_fast.config.RunConfig."
        )
    called = path.stem if function == USUAL else f"{path.stem}-{function}"
    return replace(run, recipe=called, recipe_file=f"{file}:{function}")


def _executed(path: Path) -> ModuleType:
    """The file as a module of its own name; nothing is kept of it beside it."""
    module = ModuleType(f"recipe_of_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # last: a file beside it hides nothing that is installed
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return module


def _guarded(path: Path, name: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        line = _line_in(path, error)
        place = f"{path}:{line}" if line else f"{path}"
        raise ValueError(f"--recipe {name}: {place}: {type(error).__name__}: {one_line(error)}") from error


def _line_in(path: Path, error: BaseException) -> int | None:
    """Where in the file it was raised, or the call that led there."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None


def _no_function(file: str, function: str | None, functions: list[str]) -> str:
    if not function:
        return f"--recipe {file} names no function: write {file}:{functions[0] if functions else USUAL}."
    near = difflib.get_close_matches(function, functions, n=3, cutoff=0.4) or functions
    has = f"nearest: {', '.join(near)}" if near else "it has none"
    return f"--recipe {file}:{function}: the file has no function {function!r}; {has}."


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
