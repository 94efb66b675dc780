"""Algorithm 1 as written: every tuple evaluates its right and its wrong label, 2NK evaluations a step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .training import Batch, ImageData, conv_weights, draw_batch, force_weight_norm_


def algorithm1_loss(net: nn.Module, batch: Batch, num_classes: int) -> Tensor:
    """Sum over the NK tuples of w (|D(x_noisy, c) - x|^2 - |D(x_noisy, c~) - x|^2), over N K."""
    num_images, num_negatives = len(batch.x), batch.labels.shape[1] - 1
    x, x_noisy, sigma, weight = (v.repeat_interleave(num_negatives, dim=0) for v in batch[:4])
    right = batch.labels[:, 0].repeat_interleave(num_negatives)
    wrong = batch.labels[:, 1:].flatten()
    error = [
        (net(x_noisy, sigma, F.one_hot(label, num_classes).float()) - x).square().sum(dim=(1, 2, 3))
        for label in (right, wrong)
    ]
    return (weight * (error[0] - error[1])).sum() / (num_images * num_negatives)


class Algorithm1Step:
    """A whole step in eager torch: data, loss, backward, Adam, EMA, forced weight normalisation.

    `torch.optim.Adam` with its default flags; one EMA, `lerp_` per parameter. Left out of EDM2's loop, in the
    baseline's favour: the replacement of non-finite gradients.
    """

    def __init__(self, net: nn.Module, data: ImageData, num_images: int, num_negatives: int):
        self.net = net.train()
        self.data, self.num_images, self.num_negatives = data, num_images, num_negatives
        self.params = [p for name, p in net.named_parameters() if not name.startswith("logvar")]
        self.weights = conv_weights(net.unet)
        self.ema = [p.detach().clone() for p in self.params]
        self.optimizer = torch.optim.Adam(self.params, lr=1e-4, betas=(0.9, 0.99))

    def loss(self, batch: Batch) -> Tensor:
        return algorithm1_loss(self.net, batch, self.data.num_classes)

    def draw(self) -> Batch:
        """A minibatch on the network's device."""
        return draw_batch(self.data, self.num_images, self.num_negatives, device=self.params[0].device)

    def __call__(self) -> None:
        batch = self.draw()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        self.optimizer.step()
        self.average()
        force_weight_norm_(self.weights)

    @torch.no_grad()
    def average(self) -> None:
        for average, parameter in zip(self.ema, self.params, strict=True):
            average.lerp_(parameter, 0.1)


def copy_of(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same network and weights, its U-Net computing in `dtype`."""
    net = copy.deepcopy(net)
    net.dtype = dtype
    return net
