"""Plain torch at its best: N(1+K) evaluations, fused Adam, and `torch.compile` where asked for."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .algorithm1 import Algorithm1Step
from .training import Batch, ImageData


def deduplicated_loss(net: nn.Module, batch: Batch, num_classes: int) -> Tensor:
    """Algorithm 1's loss with the right label evaluated once an image."""
    num_images, num_columns = batch.labels.shape
    x, x_noisy, sigma, weight = (v.repeat_interleave(num_columns, dim=0) for v in batch[:4])
    one_hot = F.one_hot(batch.labels.flatten(), num_classes).float()
    energy = weight * (net(x_noisy, sigma, one_hot) - x).square().sum(dim=(1, 2, 3))
    energy = energy.view(num_images, num_columns)
    return (energy[:, 0] - energy[:, 1:].mean(dim=1)).mean()


class DeduplicatedStep(Algorithm1Step):
    """A whole step; `backend` compiles network and loss with it, in torch.compile's `mode`; None: eager.

    Inductor lays convolutions out channels_last on the CPU by itself. `compile_seconds` is what the first
    call took over the second one.
    """

    def __init__(
        self,
        net: nn.Module,
        data: ImageData,
        num_images: int,
        num_negatives: int,
        *,
        backend: str | None = None,
        mode: str | None = None,
    ):
        super().__init__(net, data, num_images, num_negatives)
        self.optimizer = torch.optim.Adam(self.params, lr=1e-4, betas=(0.9, 0.99), fused=True)
        self.loss_function = deduplicated_loss
        self.compile_seconds = 0.0
        if backend is not None:
            torch._dynamo.reset()
            self.loss_function = torch.compile(
                deduplicated_loss, fullgraph=True, dynamic=False, backend=backend, mode=mode
            )
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                self()
                seconds.append(time.perf_counter() - start)
            self.compile_seconds = seconds[0] - seconds[1]

    def loss(self, batch: Batch) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # in the modes that capture: the last step's are done with
        return self.loss_function(self.net, batch, self.data.num_classes)

    @torch.no_grad()
    def average(self) -> None:
        torch._foreach_lerp_(self.ema, self.params, 0.1)
