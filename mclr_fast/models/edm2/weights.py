"""Effective weights of a network, made once for all its calls in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mclr_fast import ops

from .layers import Block, MPConv
from .network import Precond


class EffectiveWeights:
    """What the layers of a network compute with: normalised, scaled by the gain, cast, channels_last.

    Every parameter acts on the network through them alone. So a step makes them once, its micro-batches
    accumulate gradients into them, ranks reduce those once, and one backward of the normalisation takes
    them to the parameters.
    """

    def __init__(self, net: Precond):
        """net: on its device, not wrapped; its parameters are held by reference."""
        self._layers = [module for module in net.modules() if isinstance(module, MPConv)]
        gains = {id(net.unet.out_conv): net.unet.out_gain}
        gains |= {id(m.emb_linear): m.emb_gain for m in net.modules() if isinstance(m, Block)}
        self._gains = [gains.get(id(layer)) for layer in self._layers]
        self._dtypes = [net.dtype if layer.weight.ndim == 4 else torch.float32 for layer in self._layers]
        self._sums: list[Tensor | None] = [None] * len(self._layers)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the network's calls use the weights as they are now."""
        self._hold()
        try:
            yield
        finally:
            for layer in self._layers:
                layer.held = None

    def keep(self) -> None:
        """From now on the network's calls use the weights as they are now; the parameters are dropped."""
        self._hold()
        for layer in self._layers:
            layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)

    @torch.no_grad()
    def _hold(self) -> None:
        made = ops.weight_norm_scale([layer.weight for layer in self._layers], self._gains, self._dtypes)
        for layer, weight in zip(self._layers, made, strict=True):
            layer.held = weight.requires_grad_(layer.weight.requires_grad)

    def accumulate(self) -> None:
        """Keep the gradients of one micro-batch; call inside `held`, after its backward pass.

        The first micro-batch's stay as they are; from the second on they are added up in float32.
        """
        for i, layer in enumerate(self._layers):
            grad, layer.held.grad = layer.held.grad, None
            if self._sums[i] is None:
                self._sums[i] = grad
            elif grad is not None:
                self._sums[i] = self._sums[i].float().add_(grad)

    def backward(self, reduce: Callable[[Tensor], Tensor] | None = None, scale: float = 1.0) -> None:
        """Set the parameters' gradients: `scale` times what was accumulated.

        `reduce` adds up a flat float32 tensor over ranks, in place.
        """
        trained = [i for i, layer in enumerate(self._layers) if layer.weight.requires_grad]
        layers, gains = [self._layers[i] for i in trained], [self._gains[i] for i in trained]
        grads = [self._grad(i) for i in trained]
        self._sums = [None] * len(self._layers)
        if reduce is not None:
            # Channels last, a gradient's memory is its flat view.
            parts = [g.permute(0, 2, 3, 1) if g.ndim == 4 else g for g in grads]
            flat = reduce(torch.cat([part.reshape(-1).float() for part in parts]))
            pieces = flat.split([part.numel() for part in parts])
            parts = [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
            grads = [part.permute(0, 3, 1, 2) if part.ndim == 4 else part for part in parts]
        weights = [layer.weight for layer in layers]
        with torch.no_grad():
            grad_weights, grad_gains = ops.weight_norm_scale_grads(grads, weights, gains, scale)
        for parameter, grad in zip([*weights, *gains], [*grad_weights, *grad_gains], strict=True):
            if parameter is not None:
                parameter.grad = grad

    def _grad(self, i: int) -> Tensor:
        """The accumulated gradient; zeros where no micro-batch of this rank used the layer."""
        weight = self._layers[i].weight
        return torch.zeros_like(weight, dtype=self._dtypes[i]) if self._sums[i] is None else self._sums[i]
