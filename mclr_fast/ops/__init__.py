"""The operations the package is built on.

Every op has one plain-torch truth in `ops/reference`. Where a fused implementation exists, the public
function here chooses it; `implementations()` says what is in use and why.
"""

from typing import NamedTuple

from .contrast_loss import contrast_loss
from .reference.adam_norm_ema_ import adam_norm_ema_, force_weight_norm_
from .reference.magnitude_preserving import mp_fourier, mp_silu, mp_sum, normalize
from .reference.modulate_silu import modulate_silu
from .reference.mp_cat_silu import mp_cat_silu
from .reference.mp_sum_clip import mp_sum_clip
from .reference.noisy_input import noisy_input
from .reference.philox import random_normal, random_uniform, random_words
from .reference.pixel_norm_silu import pixel_norm_silu
from .reference.qkv_norm import qkv_norm
from .reference.weight_norm_scale import weight_norm_scale
from .weighted_sq_error import weighted_sq_error

__all__ = [
    "Implementation",
    "adam_norm_ema_",
    "contrast_loss",
    "force_weight_norm_",
    "implementations",
    "modulate_silu",
    "mp_cat_silu",
    "mp_fourier",
    "mp_silu",
    "mp_sum",
    "mp_sum_clip",
    "noisy_input",
    "normalize",
    "pixel_norm_silu",
    "qkv_norm",
    "random_normal",
    "random_uniform",
    "random_words",
    "weight_norm_scale",
    "weighted_sq_error",
]

OPS = (
    "adam_norm_ema_",
    "contrast_loss",
    "modulate_silu",
    "mp_cat_silu",
    "mp_sum_clip",
    "noisy_input",
    "pixel_norm_silu",
    "qkv_norm",
    "weight_norm_scale",
    "weighted_sq_error",
)
"""The ops that may have a fused implementation beside the reference."""


class Implementation(NamedTuple):
    """One row of the table: the op, the implementation in use, and why."""

    op: str
    implementation: str
    reason: str


def implementations() -> list[Implementation]:
    """Op, implementation in use, reason: one row an op, as `python -m mclr_fast.doctor` prints."""
    reason = "plain torch; no fused implementation is built yet"
    return [Implementation(op, "reference", reason) for op in OPS]
