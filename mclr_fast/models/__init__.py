"""Models, the one format they are saved in (model.safetensors beside config.json), and pickled ones.

Imported when they are used: recipes take presets alone, which need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mclr_fast.runtime.on_use import on_use

if TYPE_CHECKING:
    from .family import Facts, Family, Model, families, get_family, register
    from .files import (
        check_state,
        describe,
        load,
        model_from_config,
        read_config,
        read_state,
        resolve,
        save_model,
        weights_file,
        write_description,
    )
    from .interpolation import interpolate

_MODULES = {
    "Facts": "family",
    "Family": "family",
    "Model": "family",
    "check_state": "files",
    "describe": "files",
    "families": "family",
    "get_family": "family",
    "interpolate": "interpolation",
    "load": "files",
    "model_from_config": "files",
    "read_config": "files",
    "read_state": "files",
    "register": "family",
    "resolve": "files",
    "save_model": "files",
    "weights_file": "files",
    "write_description": "files",
}
__all__ = [
    "Facts",
    "Family",
    "Model",
    "check_state",
    "describe",
    "families",
    "get_family",
    "interpolate",
    "load",
    "model_from_config",
    "read_config",
    "read_state",
    "register",
    "resolve",
    "save_model",
    "weights_file",
    "write_description",
]

__getattr__ = on_use(__name__, _MODULES)
