"""Public op: cosine attention's operands from the joint projection."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._layout import channels_last, empty_images
from .reference.qkv_norm import qkv_norm as reference


def qkv_norm(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each divided by (1e-4 + its rms over a head's channels).

    Shapes    qkv: [B, 3C, H, W], channel = head * 3d + c * 3 + {0: q, 1: k, 2: v}, d = C / num_heads
              -> three of [B, heads, HW, d].
    Dtypes    qkv float32, bfloat16 (float16 on a GPU), the results'; math in float32, each rounded once.
    Formats   qkv any; channels_last costs no copy. The fused results are contiguous.
    Gradient  qkv; keeps qkv for backward and computes the norms again.
    Cost      reads qkv once, writes as much; memory bound; 4 FLOPs an element.
    Errors    ValueError for a number of channels that the heads do not divide.
    Source    EDM2 (arXiv 2312.02696), Figure 21.
    """
    shape = qkv.shape
    if len(shape) != 4 or num_heads < 1 or not shape[1] or shape[1] % (3 * num_heads):
        raise ValueError(
            f"qkv must be [B,C,H,W], C a multiple of 3 num_heads = {3 * num_heads}, not {list(qkv.shape)}."
        )
    if not _choice.fused("qkv_norm", qkv):
        return reference(qkv, num_heads)
    return _forward(qkv, num_heads)


def _sizes(qkv: Tensor, num_heads: int) -> tuple[int, int, int, int]:
    """images, heads, pixels, depth."""
    images, channels, height, width = qkv.shape
    return images, num_heads, height * width, channels // (3 * num_heads)


def _forward_cpu(qkv, num_heads):
    qkv, results = channels_last(qkv), _forward_fake(qkv, num_heads)
    _native.cpu().qkv_norm_forward(_native.code(qkv), qkv, *results, *_sizes(qkv, num_heads))
    return results


def _forward_fake(qkv, num_heads):
    q = qkv.new_empty(_sizes(qkv, num_heads))
    return q, torch.empty_like(q), torch.empty_like(q)


def _backward_cpu(grad_q, grad_k, grad_v, qkv, num_heads):
    qkv, grads = channels_last(qkv), [grad.contiguous() for grad in (grad_q, grad_k, grad_v)]
    grad_qkv = empty_images(qkv)
    _native.cpu().qkv_norm_backward(_native.code(qkv), *grads, qkv, grad_qkv, *_sizes(qkv, num_heads))
    return grad_qkv


def _backward_fake(grad_q, grad_k, grad_v, qkv, num_heads):
    return empty_images(qkv)


_forward = _library.define(
    "qkv_norm(Tensor qkv, int num_heads) -> (Tensor, Tensor, Tensor)",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.qkv_norm:forward",
)
_backward = _library.define(
    "qkv_norm_backward(Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor qkv, int num_heads) -> Tensor",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.qkv_norm:backward",
)


def _save(ctx, arguments, output):
    qkv, ctx.num_heads = arguments
    ctx.save_for_backward(qkv)


def _gradient(ctx, *grads):
    (qkv,) = ctx.saved_tensors
    grads = (qkv.new_zeros(_sizes(qkv, ctx.num_heads)) if grad is None else grad for grad in grads)
    return _backward(*grads, qkv, ctx.num_heads), None


_library.differentiable(_forward, _save, _gradient)
