"""Models, the one format they are saved in (model.safetensors beside config.json), and pickled ones."""

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
from .interpolate import interpolate

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


def _edm2() -> Family:
    from .edm2.family import EDM2

    return EDM2()


def _var() -> Family:
    from .var.family import Autoregressive

    return Autoregressive()


register("edm2", _edm2)
register("var", _var)
