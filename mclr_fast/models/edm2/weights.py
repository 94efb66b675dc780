"""Effective weights of a network, made once for all its calls in a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mclr_fast import ops

from .layers import Block, MPConv
from .network import Precond


class EffectiveWeights:
    """What the layers of a network compute with: normalised, scaled by the gain, cast, channels_last.

    Every parameter acts on the network through them alone. So a step makes them once, its micro-batches have
    gradients of them, ranks reduce those once, and one backward of the normalisation takes them to the
    parameters. See `models.step_weights.StepWeights`.
    """

    def __init__(self, net: Precond):
        """net: on its device, not wrapped; its parameters are held by reference."""
        self._layers = [module for module in net.modules() if isinstance(module, MPConv)]
        gains = {id(net.unet.out_conv): net.unet.out_gain}
        gains |= {id(m.emb_linear): m.emb_gain for m in net.modules() if isinstance(m, Block)}
        self._gains = [gains.get(id(layer)) for layer in self._layers]
        self._dtypes = [net.dtype if layer.weight.ndim == 4 else torch.float32 for layer in self._layers]

    @property
    def like_gradients(self) -> list[Tensor]:
        """As `StepWeights.like_gradients`: channels_last, of the trained layers."""
        weights = [layer.weight for layer in self._layers if layer.weight.requires_grad]
        return [
            torch.empty_like(
                weight,
                device="meta",
                memory_format=torch.channels_last if weight.ndim == 4 else torch.contiguous_format,
            )
            for weight in weights
        ]

    @torch.no_grad()
    def make(self) -> list[Tensor]:
        """As `StepWeights.make`, one of each layer."""
        return ops.weight_norm_scale([layer.weight for layer in self._layers], self._gains, self._dtypes)

    @contextmanager
    def held(self, made: list[Tensor] | None = None) -> Iterator[None]:
        """As `StepWeights.held`."""
        self._hold(self.make() if made is None else made)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.held = None

    def keep(self) -> None:
        """From now on the network's calls use the weights as they are now; the parameters are dropped."""
        self._hold(self.make())
        for layer in self._layers:
            layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)

    def _hold(self, made: list[Tensor]) -> None:
        for layer, weight in zip(self._layers, made, strict=True):
            layer.held = weight.requires_grad_(layer.weight.requires_grad)

    def take(self) -> list[Tensor | None]:
        """As `StepWeights.take`, of the trained layers."""
        held = [layer.held for layer in self._layers if layer.weight.requires_grad]
        grads = [weight.grad for weight in held]
        for weight in held:
            weight.grad = None
        return grads

    @torch.no_grad()
    def backward(self, grads: list[Tensor], scale: float | Tensor = 1.0) -> None:
        """As `StepWeights.backward`."""
        trained = [i for i, layer in enumerate(self._layers) if layer.weight.requires_grad]
        weights, gains = [self._layers[i].weight for i in trained], [self._gains[i] for i in trained]
        made = ops.weight_norm_scale_grads(grads, weights, gains, scale)
        for parameters, found in zip((weights, gains), made, strict=True):
            for parameter, grad in zip(parameters, found, strict=True):
                if parameter is not None:
                    parameter.grad = grad
