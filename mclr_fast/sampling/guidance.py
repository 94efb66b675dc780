"""Guidance: push a denoiser's output away from that of a weaker, guiding denoiser."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`net(x [N,C,H,W], sigma [], labels or None) -> D(x; sigma, labels) [N,C,H,W]`."""


class Unconditional:
    """`net` with the zero label vector (label -1) for every sample, whatever labels it is given.

    As `gnet` it lets a net trained with label dropout guide itself (classifier-free guidance).
    """

    def __init__(self, net: Denoiser) -> None:
        """`net` is called, not copied."""
        self.net = net

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma) without a class; `labels` are ignored."""
        no_class = torch.full((x.shape[0],), -1, dtype=torch.int64, device=x.device)
        return self.net(x, sigma, no_class)


def guided_denoiser(net: Denoiser, gnet: Denoiser | None, guidance: float) -> Denoiser:
    """The denoiser g + w (d - g), with d from `net`, g from `gnet` and w = `guidance`.

    Both get the same labels. At w = 1 this is `net` itself: `gnet` is never called and may be None.
    The MCLR paper's gamma is w - 1.

    Source    EDM2 (arXiv 2312.02696), section 4; autoguidance (arXiv 2406.02507).
    """
    if guidance == 1:
        return net
    if gnet is None:
        raise ValueError(
            f"guidance={guidance} needs a guiding net: pass gnet (a weaker or unconditional net, "
            "or Unconditional(net)), or leave guidance at 1."
        )
    return lambda x, sigma, labels: torch.lerp(gnet(x, sigma, labels), net(x, sigma, labels), guidance)
