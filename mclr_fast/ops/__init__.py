"""The operations the package is built on.

Every op has one plain-torch truth in `ops/reference`. Where a fused implementation exists, the public
function here chooses it; `implementations()` says what is in use and why.
"""

from . import _choice
from ._choice import Implementation, using
from ._library import FLOPS
from .adam_norm_ema_ import adam_norm_ema_, prepare_adam_norm_ema_
from .contrast_loss import contrast_loss
from .double_pixels import double_pixels, halve_pixels
from .gated_add import gated_add
from .heun_update import heun_update
from .linear_cross_entropy import linear_cross_entropy
from .modulate_layer_norm import modulate_layer_norm
from .modulate_silu import modulate_silu
from .mp_cat_silu import mp_cat_silu
from .mp_sum_clip import mp_sum_clip, mp_sum_clip_silu
from .noisy_input import noisy_input
from .pixel_norm_silu import pixel_norm_silu
from .qkv_norm import qkv_norm
from .reference.adam_norm_ema_ import force_weight_norm_
from .reference.magnitude_preserving import mp_fourier, mp_silu, mp_sum, normalize
from .reference.philox import random_normal, random_uniform, random_words
from .reference.with_ones import with_ones
from .weight_norm_scale import weight_norm_scale, weight_norm_scale_grads
from .weighted_sq_error import weighted_sq_error

__all__ = [
    "FLOPS",
    "Implementation",
    "adam_norm_ema_",
    "contrast_loss",
    "double_pixels",
    "force_weight_norm_",
    "gated_add",
    "halve_pixels",
    "heun_update",
    "implementations",
    "linear_cross_entropy",
    "modulate_layer_norm",
    "modulate_silu",
    "mp_cat_silu",
    "mp_fourier",
    "mp_silu",
    "mp_sum",
    "mp_sum_clip",
    "mp_sum_clip_silu",
    "noisy_input",
    "normalize",
    "pixel_norm_silu",
    "prepare_adam_norm_ema_",
    "qkv_norm",
    "random_normal",
    "random_uniform",
    "random_words",
    "using",
    "weight_norm_scale",
    "weight_norm_scale_grads",
    "weighted_sq_error",
    "with_ones",
]

OPS = (
    "adam_norm_ema_",
    "contrast_loss",
    "double_pixels",
    "gated_add",
    "heun_update",
    "linear_cross_entropy",
    "modulate_layer_norm",
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


def implementations() -> list[Implementation]:
    """Op, implementation in use, reason: one row an op, as `python -m mclr_fast.doctor` prints."""
    return _choice.implementations(OPS)
