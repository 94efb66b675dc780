"""A sampler's step: D from the network's output, Euler or Heun update, the next scaled input."""

import math

import torch
from torch import Tensor

from .with_ones import with_ones


def heun_update(
    pred: Tensor,
    guide: Tensor | None,
    guidance: float,
    x: Tensor,
    sigma: float,
    x_hat: Tensor,
    sigma_hat: float,
    sigma_next: float,
    slope: Tensor | None,
    sigma_data: float,
    output: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """(x_next, d, the network's input at sigma_next).

    Shapes    pred, guide: [N,C,H,W], the outputs at (x, sigma); x, x_hat, slope: [N,C,H,W], float32 or
              float64, the dtype of x_next and d -> input: `dtype` [N,C+1,H,W] channels_last.
    Source    EDM (arXiv 2206.00364), algorithm 2 and Table 1; guidance: EDM2 (arXiv 2312.02696), section 4.
    """
    pred = pred.to(x.dtype)
    if guide is not None:
        pred = torch.lerp(guide.to(x.dtype), pred, guidance)
    if output == "network":
        total = sigma**2 + sigma_data**2
        pred = sigma_data**2 / total * x + sigma * sigma_data / math.sqrt(total) * pred
    d = ((x - pred) / sigma).contiguous()
    x_next = x_hat + (sigma_next - sigma_hat) * (d if slope is None else (slope + d) / 2)
    return x_next.contiguous(), d, with_ones(x_next / math.hypot(sigma_next, sigma_data), dtype)
