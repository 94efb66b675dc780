"""Public op: the entry of a decoder block with a skip."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_shared
from ._layout import channels_last, empty_images
from .reference.mp_cat_silu import mp_cat_silu as reference


def mp_cat_silu(a: Tensor, b: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """cat = mp_cat(a, b, t), the concatenation that keeps both parts' magnitude, and mp_silu(cat).

    Shapes    a: [B,Ca,H,W], b: [B,Cb,H,W]; one of them may have N rows, B = N R: result b reads its row
              b // R -> two of [B,Ca+Cb,H,W].
    Dtypes    a and b float32, bfloat16 (float16 on a GPU), the results'; math in float32, each rounded once.
    Formats   any; channels_last is kept and costs no copy.
    Gradient  a and b (a shared one's summed over its R rows). Keeps cat for backward.
    Cost      reads each operand once, writes both results; memory bound; about 15 FLOPs an element.
    Errors    ValueError for shapes or dtypes that do not fit.
    Source    EDM2 (arXiv 2312.02696), eq. 103 and 81.
    """
    if a.ndim != 4 or b.ndim != 4 or not _fit(*a.shape[1:], *b.shape[1:]):
        raise ValueError(
            f"a must be [B,Ca,H,W] and b [B,Cb,H,W] of one size, not {list(a.shape)} and {list(b.shape)}."
        )
    check_shared(a, b)
    if not _choice.fused("mp_cat_silu", a):
        return reference(a, b, t)
    return _forward(a, b, t)


def _fit(channels_a: int, height_a: int, width_a: int, channels_b: int, height_b: int, width_b: int) -> bool:
    return channels_a > 0 and channels_b > 0 and height_a == height_b and width_a == width_b


@lru_cache
def _sizes(shape: torch.Size, num_a: int, num_b: int, channels_a: int, t: float) -> tuple[int | float, ...]:
    """images, ..., scale_b, as csrc/include/mclr_fast.h has them."""
    rows, channels, height, width = shape
    images, channels_b = min(num_a, num_b), channels - channels_a
    scale = math.sqrt(channels / ((1 - t) ** 2 + t**2))
    return (
        images,
        rows // images if images else 1,
        height * width,
        channels_a,
        channels_b,
        num_a < rows,
        num_b < rows,
        scale * (1 - t) / math.sqrt(channels_a),
        scale * t / math.sqrt(channels_b),
    )


def _forward_cpu(a, b, t):
    a, b, (cat, y) = channels_last(a), channels_last(b), _forward_fake(a, b, t)
    sizes = _sizes(cat.shape, a.shape[0], b.shape[0], a.shape[1], t)
    _native.cpu().mp_cat_silu_forward(_native.code(a), a, b, cat, y, *sizes)
    return cat, y


def _forward_fake(a, b, t):
    cat = empty_images(a if a.shape[0] >= b.shape[0] else b, channels=a.shape[1] + b.shape[1])
    return cat, empty_images(cat)


def _backward_cpu(grad_cat, grad_y, cat, t, num_a, num_b, channels_a):
    grad_cat, grad_y, cat = channels_last(grad_cat), channels_last(grad_y), channels_last(cat)
    grad_a, grad_b = _backward_fake(grad_cat, grad_y, cat, t, num_a, num_b, channels_a)
    sizes = _sizes(cat.shape, num_a, num_b, channels_a, t)
    _native.cpu().mp_cat_silu_backward(_native.code(cat), grad_cat, grad_y, cat, grad_a, grad_b, *sizes)
    return grad_a, grad_b


def _backward_fake(grad_cat, grad_y, cat, t, num_a, num_b, channels_a):
    channels_b = cat.shape[1] - channels_a
    return empty_images(cat, num_a, channels_a), empty_images(cat, num_b, channels_b)


_forward = _library.define(
    "mp_cat_silu(Tensor a, Tensor b, float t) -> (Tensor, Tensor)",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.mp_cat_silu:forward",
)
_backward = _library.define(
    "mp_cat_silu_backward(Tensor grad_cat, Tensor grad_y, Tensor cat, float t, SymInt num_a, SymInt num_b, "
    "SymInt channels_a) -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.mp_cat_silu:backward",
)


def _save(ctx, arguments, output):
    a, b, t = arguments
    ctx.save_for_backward(output[0])
    ctx.numbers = t, a.shape[0], b.shape[0], a.shape[1]


def _gradient(ctx, *grads):
    (cat,) = ctx.saved_tensors
    grad_cat, grad_y = (torch.zeros_like(cat) if grad is None else grad for grad in grads)
    return *_backward(grad_cat, grad_y, cat, *ctx.numbers), None


_library.differentiable(_forward, _save, _gradient)
