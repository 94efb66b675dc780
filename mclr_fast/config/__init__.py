"""Everything that a run and the doors can be told, with units, as --help shows it."""

from .files import ConvertConfig, PrepareConfig, ShareConfig
from .judging import EvalConfig, EvaluateConfig, JudgeConfig
from .run import RunConfig
from .sampling import HeunConfig, SampleConfig, SamplerConfig
from .training import Objective, ObjectiveConfig, TrainConfig

__all__ = [
    "ConvertConfig",
    "EvalConfig",
    "EvaluateConfig",
    "HeunConfig",
    "JudgeConfig",
    "Objective",
    "ObjectiveConfig",
    "PrepareConfig",
    "RunConfig",
    "SampleConfig",
    "SamplerConfig",
    "ShareConfig",
    "TrainConfig",
]
