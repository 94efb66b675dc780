"""Public op: the entry of a transformer's branch."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_tokens
from ._layout import as_float32
from .reference.modulate_layer_norm import modulate_layer_norm as reference


def modulate_layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """n (1 + scale) + shift, n = (x - mean) / sqrt(variance + eps) over channels: what a branch is given.

    Shapes    x: [B,L,C]; scale, shift: [B,C], shared by an image's tokens -> [B,L,C].
    Dtypes    x, scale, shift float32; the result's is `dtype`, float32 or bfloat16 (float16 on a GPU); math
              in float32, rounded once.
    Gradient  x, scale and shift; keeps x and scale for backward and computes the norm again. Sums over an
              image's tokens are made in a fixed order.
    Cost      reads x once, writes the result; memory bound; about 10 FLOPs an element.
    Errors    ValueError for shapes that do not fit.
    Source    adaLN: DiT (arXiv 2212.09748), section 3.2; VAR (arXiv 2404.02905), section 4.
    """
    check_tokens(x, scale=scale, shift=shift)
    known = dtype in _choice.DTYPES.get(x.device.type, ())
    if not known or not _choice.fused("modulate_layer_norm", x):
        return reference(x, scale, shift, eps, dtype)
    x, scale, shift = as_float32(x, scale, shift)
    return _forward(x, scale, shift, eps, dtype)


def _forward_cpu(x, scale, shift, eps, dtype):
    out = _forward_fake(x, scale, shift, eps, dtype)
    x, scale, shift = x.contiguous(), scale.contiguous(), shift.contiguous()
    _native.cpu().modulate_layer_norm_forward(_native.code(out), x, scale, shift, out, *x.shape, eps)
    return out


def _forward_fake(x, scale, shift, eps, dtype):
    return x.new_empty(x.shape, dtype=dtype)


def _backward_cpu(grad, x, scale, eps):
    grads = _backward_fake(grad, x, scale, eps)
    grad, x, scale = grad.contiguous(), x.contiguous(), scale.contiguous()
    _native.cpu().modulate_layer_norm_backward(_native.code(grad), grad, x, scale, *grads, *x.shape, eps)
    return grads


def _backward_fake(grad, x, scale, eps):
    return x.new_empty(x.shape), scale.new_empty(scale.shape), scale.new_empty(scale.shape)


_forward = _library.define(
    "modulate_layer_norm(Tensor x, Tensor scale, Tensor shift, float eps, ScalarType dtype) -> Tensor",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.modulate_layer_norm:forward",
)
_backward = _library.define(
    "modulate_layer_norm_backward(Tensor grad, Tensor x, Tensor scale, float eps)"
    " -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.modulate_layer_norm:backward",
)


def _save(ctx, arguments, output):
    ctx.save_for_backward(*arguments[:2])
    ctx.eps = arguments[3]


def _gradient(ctx, grad):
    return *_backward(grad, *ctx.saved_tensors, ctx.eps), None, None


_library.differentiable(_forward, _save, _gradient)
