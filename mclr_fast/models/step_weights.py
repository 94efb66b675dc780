"""The weights that a step's micro-batches compute with, and the way of their gradients to the parameters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

Reduce = Callable[[Tensor], Tensor]
"""Adds up a flat float32 tensor over ranks, in place, and returns it."""


class StepWeights(Protocol):
    """What a network computes with in a step: its parameters, or something made of them once."""

    def held(self) -> AbstractContextManager[None]:
        """Inside, the network's calls use the weights as they are now."""
        ...

    def accumulate(self) -> None:
        """Take in the gradients of one micro-batch; call inside `held`, after its backward pass."""
        ...

    def backward(self, reduce: Reduce | None = None, scale: float = 1.0) -> None:
        """Set the trained parameters' gradients: `scale` times what was accumulated, added up by `reduce`."""
        ...


class ParameterWeights:
    """The parameters themselves, whose gradients autograd adds up. See `StepWeights`."""

    def __init__(self, net: nn.Module):
        """net: on its device, not wrapped; its parameters are held by reference."""
        self._net = net

    def held(self) -> AbstractContextManager[None]:
        """As `StepWeights.held`: nothing is made."""
        return nullcontext()

    def accumulate(self) -> None:
        """As `StepWeights.accumulate`: they are where they belong."""

    @torch.no_grad()
    def backward(self, reduce: Reduce | None = None, scale: float = 1.0) -> None:
        """As `StepWeights.backward`; zeros where no micro-batch of this rank reached a parameter."""
        trained = [p for p in self._net.parameters() if p.requires_grad]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        if reduce is not None:
            flat = reduce(torch.cat([grad.reshape(-1).float() for grad in grads]))
            pieces = flat.split([grad.numel() for grad in grads])
            grads = [piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, trained, strict=True)]
        for parameter, grad in zip(trained, grads, strict=True):
            parameter.grad = grad if scale == 1 else grad * scale
