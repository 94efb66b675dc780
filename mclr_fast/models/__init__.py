"""Models, the one format they are saved in (model.safetensors beside config.json), and pickled ones.

Imported when they are used: recipes take presets alone, which need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mclr_fast.runtime.on_use import on_use

if TYPE_CHECKING:
    from .family import Facts, Family, Model, families, get_family, register
    from .interpolation import interpolate
    from .storage.files import (
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

_MODULES = {
    "Facts": "family",
    "Family": "family",
    "Model": "family",
    "check_state": "storage.files",
    "describe": "storage.files",
    "families": "family",
    "get_family": "family",
    "interpolate": "interpolation",
    "load": "storage.files",
    "model_from_config": "storage.files",
    "read_config": "storage.files",
    "read_state": "storage.files",
    "register": "family",
    "resolve": "storage.files",
    "save_model": "storage.files",
    "weights_file": "storage.files",
    "write_description": "storage.files",
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
