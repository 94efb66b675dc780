"""Public op: energies of a minibatch of evaluations."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_evaluations
from .reference.weighted_sq_error import weighted_sq_error as reference

MOST_PLANES = 5  # what csrc/common/interleave.h turns into pixels in registers


def weighted_sq_error(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor,
    weight: Tensor,
    *,
    sigma_data: float = 0.5,
    output: str = "network",
) -> Tensor:
    """Energies w(sigma) |D - x|^2 of N images under R labels.

    Shapes    pred: [N,R,C,H,W], the network's raw output F (output="network": preconditioned here
              with x_noisy, sigma and sigma_data) or the denoised image D itself (output="denoised");
              x, x_noisy: [N,C,H,W], shared by the row, or [N,R,C,H,W]; sigma, weight: [N] -> [N,R].
    Dtypes    any floating pred; sums and result float32.         Devices   any.
    Formats   pred's images contiguous or channels_last (others are copied); x and x_noisy any.
    Gradient  pred.                Cost      reads pred, x and, for F, x_noisy once; ~6 FLOPs an element.
    Errors    ValueError naming the argument whose shape does not fit.
    Source    eq. 22 and 151; preconditioning: EDM (arXiv 2206.00364), Table 1.
    """
    check_evaluations(pred, x, x_noisy, sigma, weight, output)
    if not _choice.fused("weighted_sq_error", pred):
        return reference(pred, x, x_noisy, sigma, weight, sigma_data, output)
    return _forward(pred, x.float(), x_noisy.float(), sigma.float(), weight.float(), sigma_data, output)


def images_of(pred: Tensor) -> Tensor:
    """pred [N,R,C,H,W] as images [N R,C,H,W], contiguous or channels_last."""
    images = pred.flatten(0, 1)
    if images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last):
        return images
    return images.contiguous()


def operands(pred: Tensor, x: Tensor, x_noisy: Tensor) -> tuple[list[Tensor], tuple[int, ...]]:
    """pred, x, x_noisy as images; images, columns, size, x_columns, noisy_columns, planes (mclr_fast.h)."""
    num_images, num_columns, channels, height, width = pred.shape
    own = (1 if v.ndim == 4 else num_columns for v in (x, x_noisy))
    images, sources = images_of(pred), [v if v.ndim == 4 else v.flatten(0, 1) for v in (x, x_noisy)]
    planes = 1
    if images.is_contiguous():
        sources = [v.contiguous() for v in sources]
    elif channels <= MOST_PLANES and all(v.is_contiguous() for v in sources):
        planes = channels
    else:
        sources = [v.contiguous(memory_format=torch.channels_last) for v in sources]
    return [images, *sources], (num_images, num_columns, channels * height * width, *own, planes)


def _forward_cpu(pred, x, x_noisy, sigma, weight, sigma_data, output):
    energy = _forward_fake(pred, x, x_noisy, sigma, weight, sigma_data, output)
    images, sizes = operands(pred, x, x_noisy)
    _native.cpu().weighted_sq_error_forward(
        _native.code(pred),
        *images,
        sigma.contiguous(),
        weight.contiguous(),
        energy,
        *sizes,
        sigma_data,
        output == "network",
    )
    return energy


def _forward_fake(pred, x, x_noisy, sigma, weight, sigma_data, output):
    return torch.empty(pred.shape[:2], dtype=torch.float32, device=pred.device)


def _backward_cpu(grad_energy, pred, x, x_noisy, sigma, weight, sigma_data, output):
    grad_pred, (images, sizes) = empty_like_pred(pred), operands(pred, x, x_noisy)
    _native.cpu().weighted_sq_error_backward(
        _native.code(pred),
        grad_energy.contiguous(),
        *images,
        sigma.contiguous(),
        weight.contiguous(),
        grad_pred,
        *sizes,
        sigma_data,
        output == "network",
    )
    return grad_pred


def _backward_fake(grad_energy, pred, x, x_noisy, sigma, weight, sigma_data, output):
    return empty_like_pred(pred)


def empty_like_pred(pred: Tensor) -> Tensor:
    """An uninitialised gradient of pred, in the memory order of its images."""
    return torch.empty_like(images_of(pred)).unflatten(0, pred.shape[:2])


ARGUMENTS = "Tensor pred, Tensor x, Tensor x_noisy, Tensor sigma, Tensor weight"
_forward = _library.define(
    f"weighted_sq_error({ARGUMENTS}, float sigma_data, str output) -> Tensor",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.weighted_sq_error:forward",
)
_backward = _library.define(
    f"weighted_sq_error_backward(Tensor grad_energy, {ARGUMENTS}, float sigma_data, str output) -> Tensor",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.weighted_sq_error:backward",
)


def _save(ctx, arguments, output):
    ctx.save_for_backward(*arguments[:5])
    ctx.preconditioning = arguments[5:]


def _gradient(ctx, grad):
    return _backward(grad, *ctx.saved_tensors, *ctx.preconditioning), *[None] * 6


_library.differentiable(_forward, _save, _gradient)
