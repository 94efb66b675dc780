"""A network frozen as it was: its weights in half precision, and a network of the trained one's kind."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mclr_fast import models


class FrozenReference:
    """Weights that stay, by published names, and the network that computes with them.

    Parameters are float16, as in NVIDIA's snapshots; buffers, the Fourier features, keep their precision.
    A reference behaves alike before and after it was saved, because it is rounded from the start.
    """

    def __init__(self, weights: dict[str, Tensor], source: str):
        """weights: as `of` makes them; source: what an error calls them."""
        self.weights = weights
        self.source = source
        self.sha256 = _sha256(weights)
        self._network: nn.Module | None = None

    @classmethod
    def of(cls, net: nn.Module, source: str = "the net at the first call") -> FrozenReference:
        """The weights of `net` as they are now, on the CPU."""
        net = _unwrapped(net)
        parameters = {name for name, _ in net.named_parameters()}
        weights = {
            name: tensor.detach().to("cpu", torch.float16 if name in parameters else tensor.dtype, copy=True)
            for name, tensor in net.state_dict().items()
        }
        lost = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if lost:
            raise ValueError(f"{source}: {lost[0]!r} is not finite in float16, so it cannot be a reference.")
        return cls(weights, source)

    @classmethod
    def at(cls, path: str) -> FrozenReference:
        """The model at `path`, as `mclr_fast.models.load` reads it, and with its errors."""
        return cls.of(models.load(path), f"the reference {path}")

    def network(self, net: nn.Module) -> nn.Module:
        """The frozen network, in eval mode: built once, like `net` and on its device.

        Errors    ValueError naming the first tensor that does not fit where `net` is of another architecture.
        """
        if self._network is None:
            frozen = copy.deepcopy(_unwrapped(net)).eval().requires_grad_(False)
            models.check_state(frozen.state_dict(), self.weights, self.source)
            frozen.load_state_dict(self.weights)
            for parameter in frozen.parameters():
                parameter.grad = None  # deepcopy brings them along
            self._network = frozen
        return self._network


def _unwrapped(net: nn.Module) -> nn.Module:
    return net.module if isinstance(net, DistributedDataParallel) else net


def _sha256(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
