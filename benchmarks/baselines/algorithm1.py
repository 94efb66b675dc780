"""MCLR as Algorithm 1 writes it: every tuple evaluates its right and its wrong label, 2NK evaluations."""

import torch
from torch import Tensor, nn


def algorithm1_loss(
    net: nn.Module, x: Tensor, x_noisy: Tensor, sigma: Tensor, weight: Tensor, labels_NR: Tensor
):
    """Sum over the NK tuples of w (|D(x_noisy, c) - x|^2 - |D(x_noisy, c~) - x|^2), divided by K."""
    num_negatives = labels_NR.shape[1] - 1
    x, x_noisy, sigma, weight = (
        v.repeat_interleave(num_negatives, dim=0) for v in (x, x_noisy, sigma, weight)
    )
    right = labels_NR[:, :1].expand(-1, num_negatives).reshape(-1)
    wrong = labels_NR[:, 1:].reshape(-1)
    error = [(net(x_noisy, sigma, c) - x).square().flatten(1).sum(1) for c in (right, wrong)]
    return torch.sum(weight * (error[0] - error[1])) / num_negatives
