"""NVIDIA's training step, for MCLR: network and loop as their release runs them, written from its formulas.

float16 in the U-Net and float32 around it, eager, contiguous; what `PlainNet` does better than the published
network (resampling, attention) is as there. The loop: loss, gradients' non-finite values to 0, Adam, two
power-function averages. Left out in its favour: u(sigma), and DistributedDataParallel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .algorithm1 import Algorithm1Step
from .deduplicated import deduplicated_loss
from .drop_in import LoopNet
from .plain_net import Block
from .training import Batch, ImageData

AVERAGES = (16.97, 6.94)  # exponents of relative standard deviations 0.050 and 0.100 (EDM2, eq. 126)


class PublishedBlock(Block):
    """EDM2, Figure 21, by the release's operations: filtered resampling, attention with its scores stored."""

    def resampled(self, x: Tensor) -> Tensor:
        if self.resample == "keep":
            return x
        channels = x.shape[1]
        mean_of_four = torch.full((channels, 1, 2, 2), 0.25, dtype=x.dtype, device=x.device)
        if self.resample == "down":
            return F.conv2d(x, mean_of_four, groups=channels, stride=2)
        return F.conv_transpose2d(x, mean_of_four * 4, groups=channels, stride=2)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(q.shape[2]))
        return torch.einsum("nhqk,nhck->nhcq", scores.softmax(dim=3), v)


class PublishedNet(LoopNet):
    """The published network in training: every forward normalises the stored weights first."""

    block_type = PublishedBlock


def published_copy(plain: nn.Module, net: dict, dtype: torch.dtype = torch.float16) -> PublishedNet:
    """The network `net` with a plain network's parameters, on its device, its U-Net computing in `dtype`."""
    parameter = next(plain.parameters())
    with torch.device(parameter.device):
        published = PublishedNet(**net, dtype=dtype)
    published.load_state_dict(plain.state_dict(), strict=True)
    return published


def tuples_loss(net: nn.Module, batch: Batch, num_classes: int) -> Tensor:
    """Algorithm 1's NK tuples, two evaluations each, all in one forward: it writes into the weights."""
    num_images, num_negatives = len(batch.x), batch.labels.shape[1] - 1
    x, x_noisy, sigma, weight = (v.repeat_interleave(num_negatives, dim=0) for v in batch[:4])
    x, x_noisy, sigma, weight = (torch.cat([v, v]) for v in (x, x_noisy, sigma, weight))
    classes = torch.cat([batch.labels[:, 0].repeat_interleave(num_negatives), batch.labels[:, 1:].flatten()])
    one_hot = F.one_hot(classes, num_classes).float()
    energy = (weight[:, None, None, None] * (net(x_noisy, sigma, one_hot) - x) ** 2).sum(dim=(1, 2, 3))
    right, wrong = energy.chunk(2)
    return (right - wrong).sum() / (num_images * num_negatives)


class NVLabsStep(Algorithm1Step):
    """A whole step of their loop. `loss_function`: `deduplicated_loss`, N(1+K), or `tuples_loss`, 2NK."""

    def __init__(
        self,
        net: PublishedNet,
        data: ImageData,
        num_images: int,
        num_negatives: int,
        loss_function=deduplicated_loss,
    ):
        super().__init__(net, data, num_images, num_negatives)
        self.loss_function = loss_function
        self.averages = [[p.detach().clone() for p in self.params] for _ in AVERAGES]
        self.images_seen = 0

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_function(self.net, batch, self.data.num_classes)

    def __call__(self) -> None:
        batch = self.draw()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        for parameter in self.params:
            torch.nan_to_num(parameter.grad, nan=0, posinf=0, neginf=0, out=parameter.grad)
        self.optimizer.step()
        self.images_seen += self.num_images
        self.average()

    @torch.no_grad()
    def average(self) -> None:
        """EDM2, eq. 127."""
        for exponent, averages in zip(AVERAGES, self.averages, strict=True):
            beta = (1 - self.num_images / self.images_seen) ** (exponent + 1)
            for average, parameter in zip(averages, self.params, strict=True):
                average.lerp_(parameter, 1 - beta)
