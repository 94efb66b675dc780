"""Public op: loss and energies when dL/d energy is constant."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_evaluations
from ._layout import as_float32
from .reference.contrast_loss import contrast_loss as reference
from .weighted_sq_error import OPERANDS, SCALINGS, empty_like_pred, images_of, operands


def contrast_loss(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    coefficients_NR: Tensor,
    *,
    sigma_data: float = 0.5,
    output: str = "network",
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of coefficients times energies, and the energies themselves.

    Shapes    as `weighted_sq_error`, and so the scalings; coefficients_NR: [N,R]
              -> (loss [], energy_NR [N,R]).
    Dtypes    any floating pred; results float32.                 Devices   any.
    Formats   as `weighted_sq_error`.
    Gradient  pred, through the loss only; the returned energies carry none. It is made together with
              the loss, and on the CPU used as it is where the loss's own gradient is exactly 1.
    Cost      reads pred, x and, for F, x_noisy once, and writes pred's gradient.
    Errors    ValueError naming the argument whose shape does not fit, and as `weighted_sq_error`.
    Source    eq. 22; (160) with the DSM weight in column 0.
    """
    check_evaluations(pred, x, x_noisy, sigma, weight, output, c_skip, c_out)
    if coefficients_NR.shape != pred.shape[:2]:
        raise ValueError(
            f"coefficients_NR must be {list(pred.shape[:2])} to go with pred, "
            f"not {list(coefficients_NR.shape)}."
        )
    if not _choice.fused("contrast_loss", pred):
        return reference(pred, x, x_noisy, sigma, weight, coefficients_NR, sigma_data, output, c_skip, c_out)
    tensors = as_float32(x, x_noisy, sigma, weight, coefficients_NR)
    c_skip, c_out = as_float32(c_skip, c_out)
    loss, energy, _ = _forward(pred, *tensors, sigma_data, output, c_skip, c_out)
    return loss, energy


def _forward_cpu(pred, x, x_noisy, sigma, weight, coefficients, sigma_data, output, c_skip, c_out):
    tensors, sizes = operands(pred, x, x_noisy, sigma, c_skip, c_out, weight, coefficients)
    results = _made(pred, coefficients, tensors[0])
    _native.cpu().contrast_loss_forward(
        _native.code(pred),
        *tensors,
        *results,
        *sizes,
        sigma_data,
        output == "network",
    )
    return results


def _made(pred, coefficients, images):
    """Results without data."""
    energy = torch.empty_like(coefficients, memory_format=torch.contiguous_format)
    return energy.new_empty(()), energy, empty_like_pred(pred, images)


_forward = _library.define(
    f"contrast_loss({OPERANDS}, Tensor coefficients, {SCALINGS})"
    " -> (Tensor loss, Tensor energy, Tensor grad_pred)",
    cpu=_forward_cpu,
    fake=lambda pred, x, x_noisy, sigma, weight, coefficients, *others: _made(
        pred, coefficients, images_of(pred)
    ),
    cuda="triton_kernels.contrast_loss:forward",
)


def _save(ctx, arguments, output):
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(output[2])


def _gradient(ctx, grad_loss, *_):
    (grad_pred,) = ctx.saved_tensors
    # Only of a real tensor on the CPU can the value be had for nothing; compilers pass subclasses.
    if not (type(grad_loss) is Tensor and grad_loss.device.type == "cpu" and grad_loss.item() == 1):
        grad_pred = grad_pred * grad_loss
    return grad_pred, *[None] * 9


_library.differentiable(_forward, _save, _gradient)
