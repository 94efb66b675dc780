"""The weights that a step's micro-batches compute with, and the way of their gradients to the parameters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn


class StepWeights(Protocol):
    """What a network computes with in a step: its parameters, or something made of them once."""

    @property
    def like_gradients(self) -> list[Tensor]:
        """Meta tensors of the gradients' shapes and strides, one each of what is trained."""
        ...

    def make(self) -> list[Tensor]:
        """What a step's calls compute with, of the parameters as they are now."""
        ...

    def held(self, made: list[Tensor] | None = None) -> AbstractContextManager[None]:
        """Inside, the network's calls use what `make` gave, or gives now."""
        ...

    def take(self) -> list[Tensor | None]:
        """The gradients of a micro-batch, which are let go; call inside `held`, after its backward pass.

        None where it did not reach.
        """
        ...

    def backward(self, grads: list[Tensor], scale: float | Tensor = 1.0) -> None:
        """Set the trained parameters' gradients: `scale` (a number or [1]) times those of what was held."""
        ...


class ParameterWeights:
    """The parameters themselves, whose gradients autograd adds up. See `StepWeights`."""

    def __init__(self, net: nn.Module):
        """net: on its device, not wrapped; its parameters are held by reference."""
        self._net = net

    @property
    def like_gradients(self) -> list[Tensor]:
        """As `StepWeights.like_gradients`: the parameters' own."""
        return [p.detach().to("meta") for p in self._trained()]

    def make(self) -> list[Tensor]:
        """As `StepWeights.make`: nothing is made."""
        return []

    def held(self, made: list[Tensor] | None = None) -> AbstractContextManager[None]:
        """As `StepWeights.held`."""
        return nullcontext()

    def take(self) -> list[Tensor | None]:
        """As `StepWeights.take`."""
        grads = [p.grad for p in self._trained()]
        for p in self._trained():
            p.grad = None
        return grads

    @torch.no_grad()
    def backward(self, grads: list[Tensor], scale: float | Tensor = 1.0) -> None:
        """As `StepWeights.backward`."""
        is_one = not isinstance(scale, Tensor) and scale == 1
        for p, grad in zip(self._trained(), grads, strict=True):
            p.grad = grad.to(p.dtype) if is_one else (grad * scale).to(p.dtype)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self._net.parameters() if p.requires_grad]
