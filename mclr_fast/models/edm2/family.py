"""EDM2 as a family."""

from __future__ import annotations

from typing import Any

import torch

from mclr_fast.config import SamplerConfig
from mclr_fast.models.family import Facts
from mclr_fast.sampling import HeunSampler, Unconditional

from .network import Precond
from .weights import EffectiveWeights


class EDM2:
    """See `models.family.Family`."""

    def build(self, arguments: dict[str, Any], *, dtype: torch.dtype, dropout: float = 0.0) -> Precond:
        """As `Family.build`."""
        return Precond(**arguments, dtype=dtype, dropout=dropout)

    def facts(self, arguments: dict[str, Any]) -> Facts:
        """As `Family.facts`."""
        size = arguments["img_resolution"]
        return Facts((arguments["img_channels"], size, size), arguments["label_dim"])

    def sampler(
        self,
        net: Precond,
        options: SamplerConfig,
        *,
        guidance: float = 1.0,
        guide: Precond | None = None,
    ) -> HeunSampler:
        """As `Family.sampler`."""
        return HeunSampler(
            net,
            (net.img_channels, net.img_resolution, net.img_resolution),
            net.unet.out_gain.device,
            options,
            guide or Unconditional(net),
            guidance,
            EffectiveWeights(net).held,
        )
