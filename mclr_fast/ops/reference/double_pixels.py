"""Twice the height and width: every pixel four times, or four phases of windows joined; and half of it."""

import torch
from torch import Tensor
from torch.nn import functional as F


def double_pixels(x: Tensor, phases: bool = False) -> Tensor:
    """Pixel (2h + i, 2w + j) is pixel (h, w), or phase 2i + j, of C channels each, of window (h + i, w + j).

    Shapes    x: [B,C,H,W], or [B,4C,H+1,W+1] with `phases` -> [B,C,2H,2W].
    Source    EDM2 (arXiv 2312.02696), Figure 21: resampling with f = (1, 1), and a 3x3 convolution after it.
    """
    if not phases:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    batch, channels, height, width = x.shape
    windows = x.reshape(batch, 2, 2, channels // 4, height, width)
    rows = []
    for i in range(2):
        columns = [windows[:, i, j, :, i : height - 1 + i, j : width - 1 + j] for j in range(2)]
        rows.append(torch.stack(columns, dim=-1).flatten(-2))
    return torch.stack(rows, dim=-2).flatten(-3, -2)


def halve_pixels(x: Tensor) -> Tensor:
    """The mean of every 2x2 pixels, [B,C,2H,2W] -> [B,C,H,W]. Source: EDM2 (arXiv 2312.02696), Figure 21."""
    return F.avg_pool2d(x, 2)
