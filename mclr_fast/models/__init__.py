"""Models, and the one format they are saved in: model.safetensors beside config.json."""

from .files import check_state, describe, load, model_from_config, read_config, resolve

__all__ = ["check_state", "describe", "load", "model_from_config", "read_config", "resolve"]
