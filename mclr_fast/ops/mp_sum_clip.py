"""Public ops: residual sum and clipping at a block's exit, with the next block's mp_silu where wanted."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_shared
from ._layout import channels_last, empty_images
from .reference import mp_sum_clip as reference


def mp_sum_clip(a: Tensor, b: Tensor, t: float, clip: float | None = None) -> Tensor:
    """((1-t) a + t b) / sqrt((1-t)^2 + t^2), clamped to [-clip, clip] when `clip` is given.

    Shapes    a, b: [B,C,H,W], or one of them [N,C,H,W] with B = N R: result b reads its row b // R
              -> [B,C,H,W]. The plain-torch form takes any shape.
    Dtypes    a and b float32, bfloat16 (float16 on a GPU), the result's; math in float32, rounded once.
    Formats   any; channels_last is kept and costs no copy.
    Gradient  a and b (a shared one's summed over its R rows); 0 where the result is clipped. Keeps the
              result for backward, and nothing without a clip.
    Cost      reads each operand once, writes B results; memory bound; 3 FLOPs an element.
    Errors    ValueError for shapes or dtypes that do not fit, or a clip that is not positive.
    Source    EDM2 (arXiv 2312.02696), eq. 88 and Figure 21.
    """
    _check(a, b, clip)
    if a.ndim != 4 or not _choice.fused("mp_sum_clip", a):
        return reference.mp_sum_clip(a, b, t, clip)
    return _forward(a, b, t, _rounded(clip, a.dtype))


def mp_sum_clip_silu(a: Tensor, b: Tensor, t: float, clip: float | None = None) -> tuple[Tensor, Tensor]:
    """(out, mp_silu(out)) with out = mp_sum_clip(a, b, t, clip), in one pass.

    As mp_sum_clip in all else; mp_silu is of `out` before its rounding, and `out` is kept for backward.
    Cost      reads each operand once, writes 2 B results; memory bound; about 15 FLOPs an element.
    Source    EDM2 (arXiv 2312.02696), eq. 88 and 81.
    """
    _check(a, b, clip)
    if a.ndim != 4 or not _choice.fused("mp_sum_clip", a):
        return reference.mp_sum_clip_silu(a, b, t, clip)
    return _forward_silu(a, b, t, _rounded(clip, a.dtype))


def _check(a: Tensor, b: Tensor, clip: float | None) -> None:
    if a.shape != b.shape and a.shape[1:] != b.shape[1:]:
        raise ValueError(f"a and b must agree but for the rows, not {list(a.shape)} and {list(b.shape)}.")
    check_shared(a, b)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, or None for no clipping, not {clip!r}.")


def _rounded(clip: float | None, dtype: torch.dtype) -> float:
    """clip as `dtype` holds it: backward knows clipped results by their value."""
    if clip is None or clip == math.inf:
        return math.inf
    step = torch.finfo(dtype).eps / 2
    mantissa, exponent = math.frexp(clip)
    return math.ldexp(round(mantissa / step) * step, exponent)


@lru_cache
def _sizes(shape: torch.Size, num_a: int, num_b: int, t: float) -> tuple[int | float, ...]:
    """images, columns, size, a_shared, b_shared, weight_a, weight_b, as csrc/include/mclr_fast.h has them."""
    rows, channels, height, width = shape
    images, norm = min(num_a, num_b), math.hypot(1 - t, t)
    columns = rows // images if images else 1
    size = channels * height * width
    return images, columns, size, num_a < rows, num_b < rows, (1 - t) / norm, t / norm


def _forward_cpu(a, b, t, clip):
    a, b, out = channels_last(a), channels_last(b), _forward_fake(a, b, t, clip)
    sizes = _sizes(out.shape, a.shape[0], b.shape[0], t)
    _native.cpu().mp_sum_clip_forward(_native.code(a), a, b, out, None, *sizes, clip)
    return out


def _forward_silu_cpu(a, b, t, clip):
    a, b, (out, silu) = channels_last(a), channels_last(b), _forward_silu_fake(a, b, t, clip)
    sizes = _sizes(out.shape, a.shape[0], b.shape[0], t)
    _native.cpu().mp_sum_clip_forward(_native.code(a), a, b, out, silu, *sizes, clip)
    return out, silu


def _forward_fake(a, b, t, clip):
    return empty_images(a if a.shape[0] >= b.shape[0] else b)


def _forward_silu_fake(a, b, t, clip):
    return _forward_fake(a, b, t, clip), _forward_fake(a, b, t, clip)


def _backward_cpu(grad, out, t, clip, num_a, num_b):
    return _backward_silu_cpu(grad, None, out, t, clip, num_a, num_b)


def _backward_silu_cpu(grad, grad_silu, out, t, clip, num_a, num_b):
    grad = channels_last(grad)
    out, grad_silu = (None if x is None else channels_last(x) for x in (out, grad_silu))
    grad_a, grad_b = _backward_fake(grad, out, t, clip, num_a, num_b)
    sizes = _sizes(grad.shape, num_a, num_b, t)
    _native.cpu().mp_sum_clip_backward(_native.code(grad), grad, grad_silu, out, grad_a, grad_b, *sizes, clip)
    return grad_a, grad_b


def _backward_fake(grad, out, t, clip, num_a, num_b):
    return empty_images(grad, num_images=num_a), empty_images(grad, num_images=num_b)


def _backward_silu_fake(grad, grad_silu, out, t, clip, num_a, num_b):
    return _backward_fake(grad, out, t, clip, num_a, num_b)


_ARGUMENTS = "float t, float clip, SymInt num_a, SymInt num_b"
_forward = _library.define(
    "mp_sum_clip(Tensor a, Tensor b, float t, float clip) -> Tensor",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.mp_sum_clip:forward",
)
_backward = _library.define(
    f"mp_sum_clip_backward(Tensor grad, Tensor? out, {_ARGUMENTS}) -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.mp_sum_clip:backward",
)
_forward_silu = _library.define(
    "mp_sum_clip_silu(Tensor a, Tensor b, float t, float clip) -> (Tensor, Tensor)",
    cpu=_forward_silu_cpu,
    fake=_forward_silu_fake,
    cuda="triton_kernels.mp_sum_clip:forward_silu",
)
_backward_silu = _library.define(
    f"mp_sum_clip_silu_backward(Tensor grad, Tensor grad_silu, Tensor out, {_ARGUMENTS}) -> (Tensor, Tensor)",
    cpu=_backward_silu_cpu,
    fake=_backward_silu_fake,
    cuda="triton_kernels.mp_sum_clip:backward_silu",
)


def _save(ctx, arguments, output):
    a, b, t, clip = arguments
    if clip < math.inf:
        ctx.save_for_backward(output)
    ctx.numbers = t, clip, a.shape[0], b.shape[0]


def _gradient(ctx, grad):
    if grad is None:
        return None, None, None, None
    out = ctx.saved_tensors[0] if ctx.saved_tensors else grad  # without a clip it is not read
    return *_backward(grad, out, *ctx.numbers), None, None


def _save_silu(ctx, arguments, output):
    a, b, t, clip = arguments
    ctx.save_for_backward(output[0])
    ctx.numbers = t, clip, a.shape[0], b.shape[0]


def _gradient_silu(ctx, grad, grad_silu):
    (out,) = ctx.saved_tensors
    if grad_silu is None:
        return _gradient(ctx, grad)
    grad = torch.zeros_like(out) if grad is None else grad
    return *_backward_silu(grad, grad_silu, out, *ctx.numbers), None, None


_library.differentiable(_forward, _save, _gradient)
_library.differentiable(_forward_silu, _save_silu, _gradient_silu)
