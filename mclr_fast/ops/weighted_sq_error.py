"""Public op: energies of a minibatch of evaluations."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_evaluations
from ._layout import as_float32, channels_last
from .reference.weighted_sq_error import weighted_sq_error as reference

MOST_PLANES = 5  # what csrc/common/interleave.h turns into pixels in registers


def weighted_sq_error(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    *,
    sigma_data: float = 0.5,
    output: str = "network",
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> Tensor:
    """Energies w(sigma) |D - x|^2 of N images under R labels.

    Shapes    pred: [N,R,C,H,W], the network's raw output F (output="network"), of which is made
              D = c_skip x_noisy + c_out F, or the denoised image D itself (output="denoised");
              x, x_noisy: [N,C,H,W], shared by the row, or [N,R,C,H,W]; weight: [N] -> [N,R].
    Scalings  sigma: [N], and c_skip and c_out are EDM's of sigma and sigma_data; or sigma None, and they
              are given, [N] each, as another denoiser has them. D itself needs neither.
    Dtypes    any floating pred; sums and result float32.         Devices   any.
    Formats   pred's images contiguous or channels_last (others are copied); x and x_noisy any.
    Gradient  pred.                Cost      reads pred, x and, for F, x_noisy once; ~6 FLOPs an element.
    Errors    ValueError naming the argument whose shape does not fit; for both sigma and c_skip, c_out, for
              neither, for one of the two alone.
    Source    eq. 22 and 151; scalings: EDM (arXiv 2206.00364), Table 1.
    """
    check_evaluations(pred, x, x_noisy, sigma, weight, output, c_skip, c_out)
    if not _choice.fused("weighted_sq_error", pred):
        return reference(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out)
    x, x_noisy, sigma, weight, c_skip, c_out = as_float32(x, x_noisy, sigma, weight, c_skip, c_out)
    return _forward(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out)


def images_of(pred: Tensor) -> Tensor:
    """pred [N,R,C,H,W] as it is if contiguous; else as images [N R,C,H,W], contiguous or channels_last."""
    if pred.is_contiguous():
        return pred
    images = pred.flatten(0, 1)
    return images if images.is_contiguous(memory_format=torch.channels_last) else images.contiguous()


def operands(
    pred: Tensor, x: Tensor, x_noisy: Tensor, *rows: Tensor | None
) -> tuple[list[Tensor | None], tuple[int, ...]]:
    """What mclr_fast.h takes: pred, x and x_noisy as images, and the rows' numbers; images, columns, size,
    x_columns, noisy_columns, planes."""
    num_images, num_columns, channels, height, width = pred.shape
    own = [1 if v.ndim == 4 else num_columns for v in (x, x_noisy)]
    images, sources, planes = images_of(pred), [x, x_noisy], 1
    if images.is_contiguous():
        sources = [v.contiguous() for v in sources]
    elif channels <= MOST_PLANES and x.is_contiguous() and x_noisy.is_contiguous():
        planes = channels
    else:
        sources = [channels_last(v if v.ndim == 4 else v.flatten(0, 1)) for v in sources]
    values = [None if row is None else row.contiguous() for row in rows]
    sizes = (num_images, num_columns, channels * height * width, *own, planes)
    return [images, *sources, *values], sizes


def _forward_cpu(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out):
    energy = _forward_fake(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out)
    tensors, sizes = operands(pred, x, x_noisy, sigma, c_skip, c_out, weight)
    _native.cpu().weighted_sq_error_forward(
        _native.code(pred),
        *tensors,
        energy,
        *sizes,
        sigma_data,
        output == "network",
    )
    return energy


def _forward_fake(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out):
    return weight.new_empty(pred.shape[:2])


def _backward_cpu(grad_energy, pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out):
    tensors, sizes = operands(pred, x, x_noisy, sigma, c_skip, c_out, weight)
    grad_pred = empty_like_pred(pred, tensors[0])
    _native.cpu().weighted_sq_error_backward(
        _native.code(pred),
        grad_energy.contiguous(),
        *tensors,
        grad_pred,
        *sizes,
        sigma_data,
        output == "network",
    )
    return grad_pred


def _backward_fake(grad_energy, pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out):
    return empty_like_pred(pred, images_of(pred))


def empty_like_pred(pred: Tensor, images: Tensor) -> Tensor:
    """An uninitialised gradient of pred, in the memory order of its images (`images_of`)."""
    return torch.empty_like(pred) if images is pred else torch.empty_like(images).view(pred.shape)


OPERANDS = "Tensor pred, Tensor x, Tensor x_noisy, Tensor? sigma, Tensor weight"
SCALINGS = "float sigma_data, str output, Tensor? c_skip, Tensor? c_out"
_forward = _library.define(
    f"weighted_sq_error({OPERANDS}, {SCALINGS}) -> Tensor",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.weighted_sq_error:forward",
)
_backward = _library.define(
    f"weighted_sq_error_backward(Tensor grad_energy, {OPERANDS}, {SCALINGS}) -> Tensor",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.weighted_sq_error:backward",
)


def _save(ctx, arguments, output):
    ctx.save_for_backward(*arguments[:5], *arguments[7:])  # between them sigma_data and output, no tensors
    ctx.numbers = arguments[5:7]


def _gradient(ctx, grad):
    *tensors, c_skip, c_out = ctx.saved_tensors
    return _backward(grad, *tensors, *ctx.numbers, c_skip, c_out), *[None] * 8


_library.differentiable(_forward, _save, _gradient)
