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
    c_in: Tensor | None = None,
    ones: bool = True,
) -> tuple[Tensor, Tensor]:
    """(x + sigma eps, c_in (x + sigma eps), with a channel of ones behind it unless `ones` is False).

    Shapes    x: [N,C,H,W] or [N,R,C,H,W] (a row's images then share what is one a row); sigma: [N];
              eps: [N,C,H,W], or None: Philox draws it at position int64 [N]; c_in: [N], or None: EDM's
              -> (x's shape, [N or N R, C+1 or C, H, W] channels_last, `dtype`).
    Source    Algorithms 1 and 2; c_in: EDM (arXiv 2206.00364), Table 1.
    """
    image = x.shape[-3:]
    if eps is None:
        eps = random_normal(seed, stream, position, image.numel()).view(len(x), *image)
    if x.ndim == 5:
        sigma, eps = sigma.repeat_interleave(x.shape[1]), eps.repeat_interleave(x.shape[1], dim=0)
        c_in = None if c_in is None else c_in.repeat_interleave(x.shape[1])
    images, sigma = x if x.ndim == 4 else x.flatten(0, 1), sigma.view(-1, 1, 1, 1)
    x_noisy = (images + sigma * eps).contiguous()
    if c_in is None:
        scaled = x_noisy / (sigma**2 + sigma_data**2).sqrt()
    else:
        scaled = c_in.view(-1, 1, 1, 1) * x_noisy
    if ones:
        return x_noisy.view(x.shape), with_ones(scaled, dtype)
    return x_noisy.view(x.shape), scaled.to(dtype).contiguous(memory_format=torch.channels_last)
