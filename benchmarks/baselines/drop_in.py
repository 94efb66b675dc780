"""MCLR in NVIDIA's own loop without this package: their network's call, and the loss written there."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .plain_net import PlainNet
from .training import conv_weights, force_weight_norm_


class LoopNet(PlainNet):
    """`PlainNet` as their loop calls it: with u(sigma), and weights normalised in place by every forward."""

    def forward(
        self, x: Tensor, sigma: Tensor, one_hot: Tensor, return_logvar: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        if self.training:
            force_weight_norm_(conv_weights(self))
        denoised = super().forward(x, sigma, one_hot)
        if not return_logvar:
            return denoised
        return denoised, self.logvar_linear(self.logvar_fourier(sigma.flatten().log() / 4)).view(-1, 1, 1, 1)


def naive_loss(
    net: nn.Module, images: Tensor, labels: Tensor, noise: tuple[float, float], num_negatives: int
) -> Tensor:
    """Algorithm 1's NK tuples, two evaluations each, all in one forward -> loss of each image, [N].

    One forward, because the network writes into its weights: two before a backward would fail.
    """
    num_images, (mean, std) = len(images), noise
    sigma = (torch.randn(num_images, 1, 1, 1) * std + mean).exp()
    eps = torch.randn_like(images)
    own = labels.argmax(dim=1)
    different = (own[:, None] != own).float()
    wrong = own[torch.multinomial(different, num_negatives, replacement=True)]

    x, sigma, eps = (
        v.repeat_interleave(num_negatives, dim=0).repeat(2, 1, 1, 1) for v in (images, sigma, eps)
    )
    classes = torch.cat([own.repeat_interleave(num_negatives), wrong.flatten()])
    one_hot = F.one_hot(classes, labels.shape[1]).to(labels.dtype)
    denoised, logvar = net(x + sigma * eps, sigma, one_hot, return_logvar=True)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    energy = (weight * (denoised - x) ** 2).sum(dim=(1, 2, 3)) + 0 * logvar.flatten()
    right, mismatched = energy.view(2, num_images, num_negatives)
    return (right - mismatched).mean(dim=1)
