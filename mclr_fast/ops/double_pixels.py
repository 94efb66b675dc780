"""Public ops: an image of twice the height and width, and of half of it, where a U-Net changes resolution."""

from __future__ import annotations

from torch import Tensor

from . import _choice, _library, _native
from ._layout import channels_last, empty_channels_last
from .reference.double_pixels import double_pixels as reference
from .reference.double_pixels import halve_pixels as reference_halved


def double_pixels(x: Tensor, *, phases: bool = False) -> Tensor:
    """Every pixel four times; or, with `phases`, the four phases of a convolution's windows joined.

    With `phases` pixel (2h + i, 2w + j) of the result is phase (i, j), channels (2i + j) C to (2i + j + 1) C,
    of window (h + i, w + j): what a 3x3 convolution of the doubled image is made of.

    Shapes    x: [B,C,H,W], or [B,4C,H+1,W+1] with `phases` -> [B,C,2H,2W].
    Dtypes    x float32, bfloat16 (float16 on a GPU), the result's; nothing is computed.
    Formats   any; channels_last is kept and costs no copy.
    Gradient  x: the sum of a pixel's four, rounded once; with `phases`, 0 where no pixel reads a window.
    Cost      reads x once, writes the result; memory bound.
    Errors    ValueError for a shape that does not fit.
    Source    EDM2 (arXiv 2312.02696), Figure 21.
    """
    if x.ndim != 4 or (phases and (x.shape[1] % 4 or not x.shape[2] or not x.shape[3])):
        wanted = "[B,4C,H+1,W+1]" if phases else "[B,C,H,W]"
        raise ValueError(f"x must be {wanted}, not {list(x.shape)}.")
    if not _choice.fused("double_pixels", x):
        return reference(x, phases)
    return _forward(x, phases)


def halve_pixels(x: Tensor) -> Tensor:
    """The mean of every 2x2 pixels.

    Shapes    x: [B,C,2H,2W] -> [B,C,H,W].
    Dtypes    x float32, bfloat16 (float16 on a GPU), the result's; added up in float32, rounded once.
    Formats   any; channels_last is kept and costs no copy.
    Gradient  x.                Cost      reads x once, writes the result; memory bound.
    Errors    ValueError for a shape that does not fit.
    Source    EDM2 (arXiv 2312.02696), Figure 21.
    """
    if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"x must be [B,C,2H,2W], not {list(x.shape)}.")
    if not _choice.fused("double_pixels", x):
        return reference_halved(x)
    return _halve(x)


def _sizes(image: Tensor, phases: bool) -> tuple[int, ...]:
    """images, height, width (of the small image), channels, phases, as csrc/include/mclr_fast.h has them."""
    batch, channels, height, width = image.shape
    return batch, height // 2, width // 2, channels, int(phases)


def _large_shape(x: Tensor, phases: bool) -> tuple[int, int, int, int]:
    batch, channels, height, width = x.shape
    if phases:
        channels, height, width = channels // 4, height - 1, width - 1
    return batch, channels, 2 * height, 2 * width


def _small_shape(image: Tensor, phases: bool) -> tuple[int, int, int, int]:
    batch, channels, height, width = image.shape
    if phases:
        return batch, 4 * channels, height // 2 + 1, width // 2 + 1
    return batch, channels, height // 2, width // 2


def _doubled(x: Tensor, phases: bool, scale: float) -> Tensor:
    x, out = channels_last(x), empty_channels_last(x, _large_shape(x, phases), x.dtype)
    _native.cpu().double_pixels_forward(_native.code(x), x, out, *_sizes(out, phases), scale)
    return out


def _gathered(grad: Tensor, phases: bool, scale: float) -> Tensor:
    grad, grad_x = channels_last(grad), empty_channels_last(grad, _small_shape(grad, phases), grad.dtype)
    _native.cpu().double_pixels_backward(_native.code(grad), grad, grad_x, *_sizes(grad, phases), scale)
    return grad_x


_forward = _library.define(
    "double_pixels(Tensor x, bool phases) -> Tensor",
    cpu=lambda x, phases: _doubled(x, phases, 1.0),
    fake=lambda x, phases: empty_channels_last(x, _large_shape(x, phases), x.dtype),
    cuda="triton_kernels.double_pixels:forward",
)
_backward = _library.define(
    "double_pixels_backward(Tensor grad, bool phases) -> Tensor",
    cpu=lambda grad, phases: _gathered(grad, phases, 1.0),
    fake=lambda grad, phases: empty_channels_last(grad, _small_shape(grad, phases), grad.dtype),
    cuda="triton_kernels.double_pixels:backward",
)
_halve = _library.define(
    "halve_pixels(Tensor x) -> Tensor",
    cpu=lambda x: _gathered(x, False, 0.25),
    fake=lambda x: empty_channels_last(x, _small_shape(x, False), x.dtype),
    cuda="triton_kernels.double_pixels:halve",
)
_halve_backward = _library.define(
    "halve_pixels_backward(Tensor grad) -> Tensor",
    cpu=lambda grad: _doubled(grad, False, 0.25),
    fake=lambda grad: empty_channels_last(grad, _large_shape(grad, False), grad.dtype),
    cuda="triton_kernels.double_pixels:halve_backward",
)


def _save(ctx, arguments, output):
    ctx.phases = arguments[1:]


def _gradient(ctx, grad):
    return None if grad is None else _backward(grad, *ctx.phases), None


def _gradient_of_halved(ctx, grad):
    return None if grad is None else _halve_backward(grad)


_library.differentiable(_forward, _save, _gradient)
_library.differentiable(_halve, lambda ctx, arguments, output: None, _gradient_of_halved)
