"""Public op: the middle of a block."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._layout import as_float32, channels_last, empty_images
from .reference.modulate_silu import modulate_silu as reference


def modulate_silu(
    y: Tensor, emb: Tensor, dropout: float = 0.0, key: tuple[int, int, Tensor] | None = None
) -> Tensor:
    """mp_silu(y (1 + emb)), then dropout; one y may serve the R labels of an image.

    Shapes    y: [N,C,H,W]; emb: [B,C] or [1,C], B a multiple of N: evaluation b reads y[b // R]
              -> [B,C,H,W], B = N for one emb.
    Dtypes    y float32, bfloat16 (float16 on a GPU), the result's; emb float32; math in float32.
    Formats   any; channels_last is kept and costs no copy.
    Dropout   with key = (seed, stream, position int64 [B]) the mask is Philox's, so equal positions
              (the R labels of an image) share one; without, torch's global generator keys it.
    Gradient  y (summed over an image's labels) and emb.
    Cost      reads y once, writes B results; memory bound; about 20 FLOPs an element.
    Errors    ValueError for shapes that do not fit.
    Source    EDM2 (arXiv 2312.02696), Figure 21.
    """
    if y.ndim != 4 or emb.ndim != 2 or y.shape[1] != emb.shape[1]:
        raise ValueError(f"y must be [N,C,H,W] and emb [B,C], not {list(y.shape)} and {list(emb.shape)}.")
    images, rows = y.shape[0], emb.shape[0]
    if rows != 1 and (rows % images if images else rows):
        raise ValueError(f"emb has {rows} rows for {images} images: give one, or as many for each image.")
    seed, stream, position = 0, 0, None
    if dropout > 0:
        seed, stream, position = key or (int(torch.randint(2**62, ())), 0, torch.arange(max(rows, images)))
        position = position.to(y.device)
    if not _choice.fused("modulate_silu", y):
        return reference(y, emb, dropout, (seed, stream, position))
    (emb,) = as_float32(emb)
    return _forward(y, emb, dropout, seed, stream, position)


def _sizes(y: Tensor, emb: Tensor) -> tuple[int, ...]:
    """images, columns, pixels, channels, emb_rows, as csrc/include/mclr_fast.h has them."""
    images, channels, height, width = y.shape
    rows = emb.shape[0]
    columns = max(rows // images, 1) if images else 1
    return images, columns, height * width, channels, rows


def _forward_cpu(y, emb, dropout, seed, stream, position):
    y, emb, out = channels_last(y), emb.contiguous(), _forward_fake(y, emb, dropout, seed, stream, position)
    _native.cpu().modulate_silu_forward(
        _native.code(y), y, emb, out, *_sizes(y, emb), dropout, seed, stream, position
    )
    return out


def _forward_fake(y, emb, dropout, seed, stream, position):
    return empty_images(y, num_images=y.shape[0] if emb.shape[0] == 1 else emb.shape[0])


def _backward_cpu(grad, y, emb, dropout, seed, stream, position):
    grad, y, emb = channels_last(grad), channels_last(y), emb.contiguous()
    grad_y, grad_emb = _backward_fake(grad, y, emb, dropout, seed, stream, position)
    _native.cpu().modulate_silu_backward(
        _native.code(y), grad, y, emb, grad_y, grad_emb, *_sizes(y, emb), dropout, seed, stream, position
    )
    return grad_y, grad_emb


def _backward_fake(grad, y, emb, dropout, seed, stream, position):
    return empty_images(y), torch.empty_like(emb, memory_format=torch.contiguous_format)


_ARGUMENTS = "Tensor y, Tensor emb, float dropout, int seed, int stream, Tensor? position"
_forward = _library.define(
    f"modulate_silu({_ARGUMENTS}) -> Tensor",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.modulate_silu:forward",
)
_backward = _library.define(
    f"modulate_silu_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.modulate_silu:backward",
)


def _save(ctx, arguments, output):
    ctx.save_for_backward(arguments[0], arguments[1], arguments[5])
    ctx.dropout = arguments[2:5]


def _gradient(ctx, grad):
    y, emb, position = ctx.saved_tensors
    return *_backward(grad, y, emb, *ctx.dropout, position), None, None, None, None


_library.differentiable(_forward, _save, _gradient)
