"""A network frozen as it was: its weights, and a network of the trained one's kind."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mclr_fast import models


class FrozenReference:
    """Weights that stay, by published names, and the network that computes with them.

    A reference behaves alike before and after it was saved, because it is rounded from the start; buffers,
    such as Fourier features, keep their precision.
    """

    def __init__(self, weights: dict[str, Tensor], source: str):
        """weights: as `of` makes them; source: what an error calls them."""
        self.weights = weights
        self.source = source
        self.sha256 = _sha256(weights)
        self._network: nn.Module | None = None

    @classmethod
    def of(
        cls, net: nn.Module, dtype: torch.dtype | None, source: str = "the net at the first call"
    ) -> FrozenReference:
        """The weights of `net` as they are now, on the CPU; dtype: of the parameters, None: their own."""
        net = unwrapped(net)
        parameters = {name for name, _ in net.named_parameters()}
        weights = {
            name: tensor.detach().to("cpu", dtype if name in parameters else tensor.dtype, copy=True)
            for name, tensor in net.state_dict().items()
        }
        lost = [name for name in sorted(parameters & weights.keys()) if not weights[name].isfinite().all()]
        if lost:
            word = str(weights[lost[0]].dtype).removeprefix("torch.")
            raise ValueError(f"{source}: {lost[0]!r} is not finite in {word}, so it cannot be a reference.")
        return cls(weights, source)

    @classmethod
    def at(cls, path: str, dtype: torch.dtype | None) -> FrozenReference:
        """The model at `path`, as `mclr_fast.models.load` reads it, and with its errors."""
        return cls.of(models.load(path), dtype, f"the reference {path}")

    def network(self, net: nn.Module) -> nn.Module:
        """The frozen network, in eval mode: built once, like `net` and on its device.

        Errors    ValueError naming the first tensor that does not fit where `net` is of another architecture.
        """
        if self._network is None:
            frozen = copy.deepcopy(unwrapped(net)).eval().requires_grad_(False)
            models.check_state(frozen.state_dict(), self.weights, self.source)
            frozen.load_state_dict(self.weights)
            for parameter in frozen.parameters():
                parameter.grad = None  # deepcopy brings them along
            self._network = frozen
        return self._network


def unwrapped(net: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile."""
    while isinstance(net, DistributedDataParallel) or hasattr(net, "_orig_mod"):
        net = net.module if isinstance(net, DistributedDataParallel) else net._orig_mod
    return net


def _sha256(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
