"""Loss, energies and the gradient of pred in one pass, for coefficients known beforehand."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import launch
from .weighted_sq_error import load_level, load_rows, load_target, locate, prepare, sum_chunks


@triton.jit
def _contrast_loss_kernel(
    pred,
    x,
    x_noisy,
    sigma,
    c_skip,
    c_out,
    weight,
    coefficients,
    partial,
    grad_pred,
    sigma_data,
    num_pixels,
    C: tl.constexpr,
    R: tl.constexpr,
    LOOP: tl.constexpr,
    X_ROWS: tl.constexpr,
    NOISY_ROWS: tl.constexpr,
    NETWORK: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    group, chunk, in_pred, in_x, inside = locate(num_pixels, C, BLOCK, CHANNELS_LAST)
    size = C * num_pixels
    n = group * LOOP // R
    skip, out, level_weight = load_level(sigma, c_skip, c_out, weight, n, sigma_data, NETWORK)
    target = load_target(x, x_noisy, group * LOOP, in_x, inside, skip, size, X_ROWS, NOISY_ROWS, NETWORK)
    for first in range(0, LOOP, ROWS):
        row, exists, value = load_rows(pred, group, first, size, in_pred, inside, LOOP, ROWS)
        error = tl.where(inside, out * value + target, 0.0)
        grad = 2 * out * level_weight * tl.load(coefficients + row, mask=exists, other=0.0) * error
        tl.store(grad_pred + row * size + in_pred, grad.to(grad_pred.dtype.element_ty), mask=inside & exists)
        total = level_weight * tl.sum(error * error, axis=1, keep_dims=True)
        tl.store(partial + row * tl.cdiv(size, BLOCK) + chunk, total, mask=exists)


@triton.jit
def _dot_kernel(coefficients, energy, loss, count, BLOCK: tl.constexpr):
    """loss = sum of coefficients times energies, by one program in a fixed order."""
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        value = tl.load(energy + i, mask=i < count, other=0.0)
        total += value * tl.load(coefficients + i, mask=i < count, other=0.0)
    tl.store(loss, tl.sum(total, axis=0))


def forward(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    coefficients: Tensor,
    sigma_data: float,
    output: str,
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(sum of coefficients times energies, the energies, d loss / d pred).

    Shapes    as `weighted_sq_error.forward`; coefficients: float32 [N,R]
              -> (float32 [], float32 [N,R], pred's shape, dtype and format).
    Cost      reads pred, x and x_noisy once, writes the gradient once.      Source    eq. 22.
    """
    e = prepare(pred, x, x_noisy, sigma, weight, output, c_skip, c_out)
    coefficients = coefficients.contiguous()
    partial = torch.empty((*pred.shape[:2], e.num_chunks), dtype=torch.float32, device=pred.device)
    grad_pred = e.empty_like_pred()
    num_pixels = pred.shape[3] * pred.shape[4]
    launch(
        _contrast_loss_kernel,
        e.num_programs,
        *e.operands,
        coefficients,
        partial,
        grad_pred,
        float(sigma_data),
        num_pixels,
        **e.constexprs,
    )
    energy = sum_chunks(partial)
    loss = energy.new_empty(())
    launch(_dot_kernel, 1, coefficients, energy, loss, energy.numel(), BLOCK=1024)
    return loss, energy, grad_pred.unflatten(0, pred.shape[:2])
