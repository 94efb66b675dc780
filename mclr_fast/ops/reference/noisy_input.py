"""x + sigma eps and the network's input, with eps drawn by Philox."""

import torch
from torch import Tensor

from .philox import random_normal
from .with_ones import with_ones


def noisy_input(
    x: Tensor,
    sigma: Tensor,
    eps: Tensor | None,
    seed: int,
    stream: int,
    position: Tensor | None,
    sigma_data: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """(x + sigma eps, c_in (x + sigma eps) with a channel of ones behind it).

    Shapes    x: [N,C,H,W] or [N,R,C,H,W] (a row's images then share sigma and eps); sigma: [N];
              eps: [N,C,H,W], or None: Philox draws it at position int64 [N]
              -> (x's shape, [N or N R, C+1, H, W] channels_last, `dtype`).
    Source    Algorithms 1 and 2; c_in: EDM (arXiv 2206.00364), Table 1.
    """
    image = x.shape[-3:]
    if eps is None:
        eps = random_normal(seed, stream, position, image.numel()).view(len(x), *image)
    if x.ndim == 5:
        sigma, eps = sigma.repeat_interleave(x.shape[1]), eps.repeat_interleave(x.shape[1], dim=0)
    images, sigma = x if x.ndim == 4 else x.flatten(0, 1), sigma.view(-1, 1, 1, 1)
    x_noisy = (images + sigma * eps).contiguous()
    return x_noisy.view(x.shape), with_ones(x_noisy / (sigma**2 + sigma_data**2).sqrt(), dtype)
