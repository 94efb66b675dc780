"""A language head's loss and gradients by chunks of tokens: no more logits than one chunk's ever exist.

A chunk's logits are one matrix product, and the gradients of hidden and weight two more. What lies between
them a device's `Kernels` do in the logits' own place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

CHUNK = 4 << 20  # logits; at VAR's 4096 tokens the products of larger ones are no faster
OF_HALVES = 0.5  # of that, on a CPU: its products in half precision take buffers of their own beside it


class Kernels(Protocol):
    """A head with this bias on one kind of device. Results are float32, one a row, and written in place."""

    def logits(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        """out = hidden weight^T, and the bias, unless the other functions add it."""

    def loss(
        self, logits: Tensor, targets: Tensor, coefficients: Tensor | None, nll: Tensor, level: Tensor
    ) -> None:
        """nll; level [2, rows]: maximum, and sum of exp(logit - maximum).

        With coefficients the logits become the gradients of the sum of coefficients times nll.
        """

    def gradient(self, logits: Tensor, targets: Tensor, level: Tensor, grad: Tensor) -> None:
        """logits become grad * d nll / d logits."""

    def add_product(self, total: Tensor, a: Tensor, b: Tensor, adds: bool) -> None:
        """total += a^T b, of which total is float32; = if not `adds`."""

    def add_rows(self, total: Tensor, a: Tensor, adds: bool) -> None:
        """total += a.sum(0); = if not `adds`."""


class Gradients:
    """Gradients of hidden, weight and bias, those that are wanted; an empty tensor for another."""

    def __init__(self, hidden: Tensor, weight: Tensor, wanted: list[bool]):
        """weight: in hidden's dtype."""
        self.wanted, self.operands = wanted, (hidden, weight)
        sizes = [hidden.shape, weight.shape, weight.shape[:1]]
        sizes = [size if is_wanted else (0,) for size, is_wanted in zip(sizes, wanted, strict=True)]
        self.hidden = hidden.new_empty(sizes[0])
        make = hidden.new_empty if len(hidden) else hidden.new_zeros  # the first chunk sets them
        self.weight, self.bias = (make(size, dtype=torch.float32) for size in sizes[1:])

    def add(self, kernels: Kernels, rows: slice, grad_logits: Tensor) -> None:
        """What one chunk gives."""
        hidden, weight = self.operands
        if self.wanted[0]:
            torch.mm(grad_logits, weight, out=self.hidden[rows])
        if self.wanted[1]:
            kernels.add_product(self.weight, grad_logits, hidden[rows], rows.start > 0)
        if self.wanted[2]:
            kernels.add_rows(self.bias, grad_logits, rows.start > 0)


def chunks(hidden: Tensor, weight: Tensor, together: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Runs of tokens, and where their logits go, a buffer that is the same each time.

    together: so many tokens are never cut; of one such group all logits exist at once.
    """
    num_tokens, vocab = len(hidden), len(weight)
    num_groups = num_tokens // max(together, 1)
    share = 1 if hidden.is_cuda or hidden.element_size() > 2 else OF_HALVES
    most = max(int(CHUNK * share) // max(vocab * together, 1), 1)
    size = -(-num_groups // max(-(-num_groups // most), 1)) * together  # as equal as they can be
    buffer = hidden.new_empty(size, vocab)
    for first in range(0, num_tokens, size or 1):
        rows = slice(first, min(first + size, num_tokens))
        yield rows, buffer[: rows.stop - first]


def loss(kernels: Kernels, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """nll [T] and level [2, T] of hidden [T,D], weight [V,D], targets [T]."""
    weight = weight.to(hidden.dtype)
    nll, level = _results(targets)
    for rows, logits in chunks(hidden, weight):
        kernels.logits(hidden[rows], weight, logits)
        kernels.loss(logits, targets[rows], None, nll[rows], level[:, rows])
    return nll, level


def loss_and_gradients(
    kernels: Kernels,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    coefficients: Tensor,
    wanted: list[bool],
) -> tuple[Tensor, Gradients]:
    """nll and the gradients of the sum of coefficients [T] times nll."""
    weight = weight.to(hidden.dtype)
    (nll, level), found = _results(targets), Gradients(hidden, weight, wanted)
    for rows, logits in chunks(hidden, weight):
        kernels.logits(hidden[rows], weight, logits)
        kernels.loss(logits, targets[rows], coefficients[rows], nll[rows], level[:, rows])
        found.add(kernels, rows, logits)
    return nll, found


def loss_and_gradients_by_rows(
    kernels: Kernels,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    coefficients: Callable[[Tensor, slice], Tensor],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Gradients]:
    """The same where a row's nll decide its coefficients: for targets [N, ...]. Returns these too, flat.

    coefficients(nll [n, ...], rows): those of these rows' tokens, or one for several as `every_token` has it.
    """
    weight, row = weight.to(hidden.dtype), targets.shape[1:]
    tokens = targets.reshape(-1)
    (nll, level), found = _results(tokens), Gradients(hidden, weight, wanted)
    known = torch.empty_like(nll)
    for run, logits in chunks(hidden, weight, together=row.numel()):
        kernels.logits(hidden[run], weight, logits)
        kernels.loss(logits, tokens[run], None, nll[run], level[:, run])
        rows = slice(run.start // row.numel(), run.stop // row.numel())
        known[run] = every_token(coefficients(nll[run].view(-1, *row), rows), targets[rows].shape)
        kernels.gradient(logits, tokens[run], level[:, run], known[run])
        found.add(kernels, run, logits)
    return nll, known, found


def every_token(coefficients: Tensor, shape: torch.Size) -> Tensor:
    """Coefficients of the first dimensions of `shape`, for all tokens: flat."""
    missing = len(shape) - coefficients.ndim
    try:
        return coefficients[(..., *[None] * max(missing, 0))].expand(shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"coefficients must be of the first dimensions of {list(shape)}, as targets are, "
            f"not {list(coefficients.shape)}."
        ) from None


def gradients(
    kernels: Kernels,
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    level: Tensor,
    wanted: list[bool],
) -> Gradients:
    """The gradients for that of nll, `grad`; the logits are made again."""
    weight = weight.to(hidden.dtype)
    found = Gradients(hidden, weight, wanted)
    for rows, logits in chunks(hidden, weight):
        kernels.logits(hidden[rows], weight, logits)
        kernels.gradient(logits, targets[rows], level[:, rows], grad[rows])
        found.add(kernels, rows, logits)
    return found


def _results(targets: Tensor) -> tuple[Tensor, Tensor]:
    level = torch.empty(2, len(targets), dtype=torch.float32, device=targets.device)
    return torch.empty_like(level[0]), level
