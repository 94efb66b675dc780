"""Public op: the entry of an encoder block."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._layout import channels_last, empty_images
from .reference.pixel_norm_silu import pixel_norm_silu as reference


def pixel_norm_silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """n = x / (1e-4 + rms of x over channels), and mp_silu(n).

    Shapes    x: [B,C,H,W] -> two of that shape.
    Dtypes    x float32, bfloat16 (float16 on a GPU), the results'; math in float32, each rounded once.
    Formats   any; channels_last is kept and costs no copy.
    Gradient  x; keeps x for backward and computes the norm again.
    Cost      reads x once, writes both results; memory bound; about 20 FLOPs an element.
    Errors    ValueError for a shape that does not fit.
    Source    EDM2 (arXiv 2312.02696), eq. 47 and 81.
    """
    if x.ndim != 4 or not x.shape[1]:
        raise ValueError(f"x must be [B,C,H,W] with C > 0, not {list(x.shape)}.")
    if not _choice.fused("pixel_norm_silu", x):
        return reference(x)
    return _forward(x)


def _sizes(x: Tensor) -> tuple[int, int]:
    """pixels of all images, channels."""
    images, channels, height, width = x.shape
    return images * height * width, channels


def _forward_cpu(x):
    x, (n, y) = channels_last(x), _forward_fake(x)
    _native.cpu().pixel_norm_silu_forward(_native.code(x), x, n, y, *_sizes(x))
    return n, y


def _forward_fake(x):
    return empty_images(x), empty_images(x)


def _backward_cpu(grad_n, grad_y, x):
    grad_n, grad_y, x = channels_last(grad_n), channels_last(grad_y), channels_last(x)
    grad_x = empty_images(x)
    _native.cpu().pixel_norm_silu_backward(_native.code(x), grad_n, grad_y, x, grad_x, *_sizes(x))
    return grad_x


def _backward_fake(grad_n, grad_y, x):
    return empty_images(x)


_forward = _library.define(
    "pixel_norm_silu(Tensor x) -> (Tensor, Tensor)",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.pixel_norm_silu:forward",
)
_backward = _library.define(
    "pixel_norm_silu_backward(Tensor grad_n, Tensor grad_y, Tensor x) -> Tensor",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.pixel_norm_silu:backward",
)


def _save(ctx, arguments, output):
    ctx.save_for_backward(*arguments)


def _gradient(ctx, *grads):
    (x,) = ctx.saved_tensors
    grad_n, grad_y = (torch.zeros_like(x) if grad is None else grad for grad in grads)
    return _backward(grad_n, grad_y, x)


_library.differentiable(_forward, _save, _gradient)
