"""Models, the one format they are saved in (model.safetensors beside config.json), and pickled ones."""

from .files import (
    FAMILIES,
    check_state,
    describe,
    load,
    model_from_config,
    read_config,
    read_state,
    resolve,
    save_model,
    weights_file,
)

__all__ = [
    "FAMILIES",
    "check_state",
    "describe",
    "load",
    "model_from_config",
    "read_config",
    "read_state",
    "resolve",
    "save_model",
    "weights_file",
]
