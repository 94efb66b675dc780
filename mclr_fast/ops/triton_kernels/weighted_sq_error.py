"""Energies of a minibatch of evaluations, and their gradient."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import launch, own_format


@triton.jit
def load_level(sigma, c_skip, c_out, weight, n, sigma_data, NETWORK: tl.constexpr):
    """(c_skip, c_out, weight) of image n: c_skip and c_out as they are given, or sigma's where that is, or
    (0, 1) where pred is the denoised image itself."""
    skip = 0.0
    out = 1.0
    if NETWORK:
        if sigma is None:
            skip = tl.load(c_skip + n)
            out = tl.load(c_out + n)
        else:
            level = tl.load(sigma + n)
            total = level * level + sigma_data * sigma_data
            skip = sigma_data * sigma_data / total
            out = level * sigma_data / tl.sqrt(total)
    return skip, out, tl.load(weight + n)


@triton.jit
def locate(num_pixels, C: tl.constexpr, BLOCK: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Group of rows and chunk of this program; the elements in pred and in x, [1, BLOCK], and their mask."""
    num_chunks = tl.cdiv(num_pixels * C, BLOCK)
    chunk = tl.program_id(0) % num_chunks
    in_pred = chunk * BLOCK + tl.arange(0, BLOCK)[None, :]
    in_x = in_pred % C * num_pixels + in_pred // C if CHANNELS_LAST else in_pred
    return (tl.program_id(0) // num_chunks).to(tl.int64), chunk, in_pred, in_x, in_pred < num_pixels * C


@triton.jit
def load_target(
    x,
    x_noisy,
    row,
    in_x,
    inside,
    c_skip,
    size,
    X_ROWS: tl.constexpr,
    NOISY_ROWS: tl.constexpr,
    NETWORK: tl.constexpr,
):
    """c_skip x_noisy - x: with c_out pred, the error D - x."""
    target = -tl.load(x + row // X_ROWS * size + in_x, mask=inside, other=0.0)
    if NETWORK:
        target += c_skip * tl.load(x_noisy + row // NOISY_ROWS * size + in_x, mask=inside, other=0.0)
    return target


@triton.jit
def load_rows(pred, group, first, size, in_pred, inside, LOOP: tl.constexpr, ROWS: tl.constexpr):
    """Rows first, first + 1, ... of a group: numbers [ROWS, 1], mask, and pred, float32 [ROWS, BLOCK]."""
    r = first + tl.arange(0, ROWS)[:, None]
    row = group * LOOP + r
    value = tl.load(pred + row * size + in_pred, mask=inside & (r < LOOP), other=0.0)
    return row, r < LOOP, value.to(tl.float32)


@triton.jit
def _weighted_sq_error_forward_kernel(
    pred,
    x,
    x_noisy,
    sigma,
    c_skip,
    c_out,
    weight,
    partial,
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
        total = level_weight * tl.sum(error * error, axis=1, keep_dims=True)
        tl.store(partial + row * tl.cdiv(size, BLOCK) + chunk, total, mask=exists)


@triton.jit
def _weighted_sq_error_backward_kernel(
    grad_energy,
    pred,
    x,
    x_noisy,
    sigma,
    c_skip,
    c_out,
    weight,
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
    group, _, in_pred, in_x, inside = locate(num_pixels, C, BLOCK, CHANNELS_LAST)
    size = C * num_pixels
    n = group * LOOP // R
    skip, out, level_weight = load_level(sigma, c_skip, c_out, weight, n, sigma_data, NETWORK)
    target = load_target(x, x_noisy, group * LOOP, in_x, inside, skip, size, X_ROWS, NOISY_ROWS, NETWORK)
    for first in range(0, LOOP, ROWS):
        row, exists, value = load_rows(pred, group, first, size, in_pred, inside, LOOP, ROWS)
        slope = 2 * out * level_weight * tl.load(grad_energy + row, mask=exists, other=0.0)
        grad = slope * (out * value + target)
        tl.store(grad_pred + row * size + in_pred, grad.to(grad_pred.dtype.element_ty), mask=inside & exists)


@triton.jit
def _sum_chunks_kernel(partial, energy, num_rows, num_chunks, ROWS: tl.constexpr, CHUNKS: tl.constexpr):
    """energy[row] = sum over chunks of partial[row, chunk], always in the same order."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, CHUNKS), tl.float32)
    for first in range(0, num_chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)[None, :]
        inside = (row[:, None] < num_rows) & (chunk < num_chunks)
        place = row[:, None].to(tl.int64) * num_chunks + chunk
        total += tl.load(partial + place, mask=inside, other=0.0)
    tl.store(energy + row, tl.sum(total, axis=1), mask=row < num_rows)


def sum_chunks(partial: Tensor) -> Tensor:
    """Sum over the last dimension of a contiguous float32 [N,R,chunks] -> [N,R]."""
    *shape, num_chunks = partial.shape
    energy = partial.new_empty(shape)
    chunks = min(triton.next_power_of_2(max(num_chunks, 1)), 256)
    rows = max(1, 1024 // chunks)
    programs = triton.cdiv(energy.numel(), rows)
    launch(
        _sum_chunks_kernel, programs, partial, energy, energy.numel(), num_chunks, ROWS=rows, CHUNKS=chunks
    )
    return energy


class Evaluations(NamedTuple):
    """The operands as the kernels take them, and how to launch one over them."""

    operands: tuple[Tensor | None, ...]
    num_programs: int
    num_chunks: int
    constexprs: dict[str, int]

    def empty_like_pred(self) -> Tensor:
        """An uninitialised [N R, C, H, W] in pred's dtype and format."""
        return torch.empty_like(self.operands[0])


def prepare(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    output: str,
    c_skip: Tensor | None,
    c_out: Tensor | None,
) -> Evaluations:
    """Bring the operands into the formats that the kernels read, and choose the tile."""
    num_images, columns, channels, height, width = pred.shape
    images = pred.flatten(0, 1)
    images = images.contiguous(memory_format=own_format(images))
    num_rows, num_pixels = num_images * columns, height * width
    shared = x.ndim == 4 and x_noisy.ndim == 4
    loop, size = columns if shared else 1, channels * num_pixels
    block = min(1024, triton.next_power_of_2(max(size, 1)))
    num_chunks = triton.cdiv(size, block)
    constexprs = {
        "C": channels,
        "R": columns,
        "LOOP": loop,
        "X_ROWS": columns if x.ndim == 4 else 1,
        "NOISY_ROWS": columns if x_noisy.ndim == 4 else 1,
        "NETWORK": output == "network",
        "CHANNELS_LAST": not images.is_contiguous(),
        "ROWS": min(triton.next_power_of_2(max(loop, 1)), 4),
        "BLOCK": block,
    }
    others = (x, x_noisy, sigma, c_skip, c_out, weight)
    operands = tuple(None if v is None else v.contiguous() for v in others)
    num_groups = num_images if shared else num_rows
    return Evaluations((images, *operands), num_groups * num_chunks, num_chunks, constexprs)


def forward(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    sigma_data: float,
    output: str,
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> Tensor:
    """energy = weight |D - x|^2, summed over C, H, W.

    Shapes    pred: [N,R,C,H,W], images contiguous or channels_last; x, x_noisy: float32 [N,C,H,W] or
              [N,R,C,H,W]; weight, and sigma or c_skip and c_out: float32 [N] -> float32 [N,R].
    Cost      reads pred once; x and, for the network's output, x_noisy once an image.
    Source    eq. 22 and 151; scalings: EDM (arXiv 2206.00364), Table 1.
    """
    e = prepare(pred, x, x_noisy, sigma, weight, output, c_skip, c_out)
    partial = torch.empty((*pred.shape[:2], e.num_chunks), dtype=torch.float32, device=pred.device)
    num_pixels = pred.shape[3] * pred.shape[4]
    launch(
        _weighted_sq_error_forward_kernel,
        e.num_programs,
        *e.operands,
        partial,
        float(sigma_data),
        num_pixels,
        **e.constexprs,
    )
    return sum_chunks(partial)


def backward(
    grad_energy: Tensor,
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    sigma_data: float,
    output: str,
    c_skip: Tensor | None = None,
    c_out: Tensor | None = None,
) -> Tensor:
    """grad_pred, in pred's dtype and format; the error is computed again. Reads pred, writes it once."""
    e = prepare(pred, x, x_noisy, sigma, weight, output, c_skip, c_out)
    grad_pred = e.empty_like_pred()
    num_pixels = pred.shape[3] * pred.shape[4]
    launch(
        _weighted_sq_error_backward_kernel,
        e.num_programs,
        grad_energy.contiguous(),
        *e.operands,
        grad_pred,
        float(sigma_data),
        num_pixels,
        **e.constexprs,
    )
    return grad_pred.unflatten(0, pred.shape[:2])
