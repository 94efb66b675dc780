"""Guidance: a denoiser is pushed away from a weaker, guiding one, which may be itself without a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`net(x [N,C,H,W], sigma [], labels or None) -> D(x; sigma, labels) [N,C,H,W]`."""

Calls = Callable[[int, Tensor], Tensor]
"""`calls(k, scaled x [N,C+1,H,W]) -> F [N,C,H,W]`: the raw output at the k-th noise level."""


class Unconditional:
    """`net` with the zero label vector (label -1) for every sample, whatever labels it is given.

    As `gnet` it lets a net trained with label dropout guide itself (classifier-free guidance).
    """

    def __init__(self, net: Denoiser) -> None:
        """`net` is called, not copied."""
        self.net = net

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, **options) -> Tensor:
        """What `net` gives without a class; `labels` are ignored."""
        return self.net(x, sigma, self._no_class(len(x), x.device), **options)

    def prepare(self, sigmas: Sequence[float], labels: Tensor, num_images: int) -> Calls:
        """As `net`'s, without a class."""
        return self.net.prepare(sigmas, self._no_class(num_images, labels.device), num_images)

    @staticmethod
    def _no_class(num_images: int, device: torch.device) -> Tensor:
        return torch.full((num_images,), -1, dtype=torch.int64, device=device)


def network_output(net: Denoiser) -> tuple[float, torch.dtype] | None:
    """(sigma_data, dtype) of a net that gives its raw output F of a scaled input; None for any other."""
    net = net.net if isinstance(net, Unconditional) else net
    if hasattr(net, "sigma_data") and hasattr(net, "dtype"):
        return net.sigma_data, net.dtype
    return None


def prepared_calls(
    nets: Sequence[Denoiser], sigmas: Sequence[float], guided: Sequence[bool], labels: Tensor, num_images: int
) -> Callable[[int, Tensor], Sequence[Tensor]]:
    """The raw outputs at the k-th of `sigmas`: the net's, and its guide's where `guided`.

    nets: the net, or both; labels: as they take them. What does not change between calls is made now. A net
    that guides itself without a class is called once, with both labels of every image.
    """
    net, guide = nets[0], nets[-1]
    joint = isinstance(guide, Unconditional) and guide.net is net and not labels.is_floating_point()
    alone = None if joint and all(guided) else net.prepare(sigmas, labels, num_images)
    if not any(guided):
        return lambda k, x: [alone(k, x)]
    if joint:
        pairs = torch.stack([labels, torch.full_like(labels, -1)], dim=1)
        both = net.prepare(sigmas, pairs, num_images)
        return lambda k, x: both(k, x).unbind(1) if guided[k] else [alone(k, x)]
    guiding = guide.prepare(sigmas, labels, num_images)
    return lambda k, x: [alone(k, x), guiding(k, x)] if guided[k] else [alone(k, x)]
