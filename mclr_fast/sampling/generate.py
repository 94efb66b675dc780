"""Sampling for evaluations: seeds spread over the ranks, the same image for a seed at any world size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mclr_fast.config import EvalConfig
from mclr_fast.models.codecs import PixelCodec
from mclr_fast.models.edm2 import EffectiveWeights, Precond
from mclr_fast.runtime.logs import progress_bar
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.signals import StopRequest

from . import Unconditional, edm_sampler, seeded_noise


def generate(
    net: Precond,
    seeds: Sequence[int],
    labels: Tensor,
    image_shape: tuple[int, int, int],
    config: EvalConfig,
    ranks: Ranks,
    stop: StopRequest,
    *,
    guidance: float = 1.0,
    description: str = "sampling",
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Sample one image for each (seed, label).

    Shapes    labels: int64 [n] -> uint8 [n,C,H,W] on the CPU, on every rank; with `decode` what it makes
              of the model's float32 [b,C,H,W].
    Guidance  classifier-free, against the net's own zero label vector; 1 = none.
    """
    decode = decode or PixelCodec(image_shape).decode
    rows = ranks.rows(len(seeds))
    own_seeds, own_labels = list(seeds)[rows], labels[rows].to(ranks.device)
    images = []
    with (
        EffectiveWeights(net).held(),
        progress_bar(description, len(own_seeds), 0, ranks.is_main, "samples") as bar,
    ):
        for first in range(0, len(own_seeds), config.sample_batch):
            stop.check()
            batch = slice(first, first + config.sample_batch)
            # Noise is drawn on the CPU, so that a seed gives the same image on every device.
            noise, _, _ = seeded_noise(own_seeds[batch], image_shape)
            x = edm_sampler(
                net,
                noise.to(ranks.device),
                own_labels[batch],
                gnet=Unconditional(net),
                guidance=guidance,
                num_steps=config.num_steps,
                sigma_min=config.sigma_min,
                sigma_max=config.sigma_max,
            )
            images.append(decode(x).cpu())
            bar.update(len(noise))
    empty = decode(torch.empty(0, *image_shape, device=ranks.device)).cpu()
    return ranks.gather_rows(torch.cat([empty, *images]))
