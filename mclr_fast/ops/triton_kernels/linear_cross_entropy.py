"""A language head's loss on a chunk of logits, and their gradient in their own place."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import launch

WIDEST = 8192  # logits of a row that a program holds; a longer row is read in tiles of so many


@triton.jit
def _load_tile(row, first, V, BLOCK: tl.constexpr):
    """(columns, which of them exist, logits), -inf past the last."""
    column = first + tl.arange(0, BLOCK)
    inside = column < V
    return column, inside, tl.load(row + column, mask=inside, other=-float("inf")).to(tl.float32)


@triton.jit
def _store_gradient(row, column, inside, logits, target, peak, total, grad):
    """row = (softmax - one at target) * grad; NaN where target is no token."""
    p = tl.exp(logits - peak) / total
    value = grad * (p - (column == target).to(tl.float32))
    tl.store(row + column, value.to(row.dtype.element_ty), mask=inside)


@triton.jit
def _known_or_nan(value, target, V):
    return tl.where((target >= 0) & (target < V), value, float("nan"))


@triton.jit
def _linear_cross_entropy_kernel(
    logits,
    targets,
    coefficients,
    nll,
    peaks,
    totals,
    V,
    GRADIENT: tl.constexpr,
    ONE_TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    row = logits + r * V
    target = tl.load(targets + r)
    column, inside, x = _load_tile(row, 0, V, BLOCK)
    peak = tl.max(x, axis=0)
    total = tl.sum(tl.exp(x - peak), axis=0)
    if not ONE_TILE:
        for first in range(BLOCK, V, BLOCK):
            _, _, more = _load_tile(row, first, V, BLOCK)
            higher = tl.maximum(peak, tl.max(more, axis=0))
            total = total * tl.exp(peak - higher) + tl.sum(tl.exp(more - higher), axis=0)
            peak = higher
    at_target = tl.load(row + target, mask=(target >= 0) & (target < V), other=0.0).to(tl.float32)
    tl.store(nll + r, _known_or_nan(peak - at_target + tl.log(total), target, V))
    tl.store(peaks + r, peak)
    tl.store(totals + r, total)
    if GRADIENT:
        grad = _known_or_nan(tl.load(coefficients + r), target, V)
        _store_gradient(row, column, inside, x, target, peak, total, grad)
        if not ONE_TILE:
            for first in range(BLOCK, V, BLOCK):
                column, inside, x = _load_tile(row, first, V, BLOCK)
                _store_gradient(row, column, inside, x, target, peak, total, grad)


@triton.jit
def _linear_cross_entropy_gradient_kernel(
    logits, targets, peaks, totals, grad_nll, V, tiles, BLOCK: tl.constexpr
):
    r = (tl.program_id(0) // tiles).to(tl.int64)
    row = logits + r * V
    target = tl.load(targets + r)
    grad = _known_or_nan(tl.load(grad_nll + r), target, V)
    peak, total = tl.load(peaks + r), tl.load(totals + r)
    column, inside, x = _load_tile(row, (tl.program_id(0) % tiles) * BLOCK, V, BLOCK)
    _store_gradient(row, column, inside, x, target, peak, total, grad)


def forward(
    logits: Tensor, targets: Tensor, coefficients: Tensor | None, nll: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, ...]:
    """nll = -log softmax(logits)[target] of each row; peak: its maximum; total: the sum of exp(logit - peak).

    Shapes    logits: [T,V], contiguous; targets: int64 [T]; all others float32 [T].
    Returns   nll, peak, total and, with coefficients, logits: now coefficients times nll's gradient.
    Cost      reads logits once, and with coefficients writes them once; a row past WIDEST is read twice.
    """
    num_rows, vocab = logits.shape
    block = min(triton.next_power_of_2(vocab), WIDEST)
    launch(
        _linear_cross_entropy_kernel,
        num_rows,
        logits,
        targets,
        nll if coefficients is None else coefficients,
        nll,
        peak,
        total,
        vocab,
        num_warps=8 if block > 2048 else 4,
        GRADIENT=coefficients is not None,
        ONE_TILE=vocab <= block,
        BLOCK=block,
    )
    return (nll, peak, total) if coefficients is None else (nll, peak, total, logits)


def backward(grad: Tensor, logits: Tensor, targets: Tensor, peak: Tensor, total: Tensor) -> Tensor:
    """logits, which become `grad` [T] times nll's gradient, given what `forward` said of each row.

    Cost      reads and writes logits once.
    """
    num_rows, vocab = logits.shape
    block = min(triton.next_power_of_2(vocab), WIDEST)
    tiles = triton.cdiv(vocab, block)
    launch(
        _linear_cross_entropy_gradient_kernel,
        num_rows * tiles,
        logits,
        targets,
        peak,
        total,
        grad,
        vocab,
        tiles,
        num_warps=8 if block > 2048 else 4,
        BLOCK=block,
    )
    return logits


class Kernels:
    """What a GPU does to a chunk of a head's logits; the products, bias included, are cuBLAS's."""

    def __init__(self, bias: Tensor | None):
        self.bias = bias

    def logits(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        """out = hidden weight^T + bias, all in hidden's dtype."""
        if self.bias is None:
            torch.mm(hidden, weight.t(), out=out)
        else:
            torch.addmm(self.bias.to(hidden.dtype), hidden, weight.t(), out=out)

    def loss(self, logits, targets, coefficients, nll, level) -> None:
        """nll and level; with coefficients logits become gradients."""
        forward(logits, targets, coefficients, nll, *level)

    def gradient(self, logits, targets, level, grad) -> None:
        """logits become `grad` times nll's gradient."""
        backward(grad, logits, targets, *level)

    def add_product(self, total: Tensor, a: Tensor, b: Tensor, adds: bool) -> None:
        """total += a^T b, which is summed in float32 and not rounded in between; = if not `adds`."""
        if a.dtype is torch.float32:
            total.addmm_(a.t(), b, beta=int(adds))
        elif adds:
            torch.addmm(total, a.t(), b, out_dtype=torch.float32, out=total)
        else:
            torch.mm(a.t(), b, out_dtype=torch.float32, out=total)

    def add_rows(self, total: Tensor, a: Tensor, adds: bool) -> None:
        """total += a.sum(0); = if not `adds`."""
        if adds:
            total += a.sum(0, dtype=torch.float32)
        else:
            torch.sum(a, 0, dtype=torch.float32, out=total)
