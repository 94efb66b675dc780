"""One step, up to its gradients: data, micro-batches, loss, backward, and what all ranks then know of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mclr_fast.methods.losses import Loss
from mclr_fast.methods.minibatch import MinibatchSource
from mclr_fast.methods.registry import Method
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from .optimizer import AdamWithAverages
from .placement import Placement


@dataclass(frozen=True)
class StepResult:
    """What a step came to, the same on every rank.

    Attributes: loss: mean over the global minibatch; energies: mean of each column; finite: whether loss and
    gradients are; stop: whether a rank was asked to stop; gradient_norm: Euclidean, of all gradients
    together, where it was asked for.
    """

    loss: float
    energies: list[float]
    finite: bool
    stop: bool
    gradient_norm: float | None = None


class Step:
    """Makes the gradients of any step.

    Attributes: loss, how micro-batches are scored: set before the first step, and again between steps.
    """

    loss: Loss

    def __init__(
        self,
        net: nn.Module,
        method: Method,
        source: MinibatchSource,
        placement: Placement,
        optimizer: AdamWithAverages,
        micro_batch: int,
        ranks: Ranks,
        stop: StopRequest,
    ):
        """micro_batch: evaluations a rank holds at once, 0 = all."""
        self.net = net
        self.method = method
        self.source = source
        self.placement = placement
        self.optimizer = optimizer
        self.micro_batch = micro_batch
        self.ranks = ranks
        self.stop = stop

    def __call__(self, images_seen: int, loss_scale: float = 1.0) -> StepResult:
        """Begin the step and wait for it."""
        return self.begin(images_seen, loss_scale)()

    def begin(
        self, images_seen: int, loss_scale: float = 1.0, *, with_norm: bool = False
    ) -> Callable[[], StepResult]:
        """Leave the gradients of the step after `images_seen` in the parameters; what waits for its result.

        Until it is called a GPU may still be at work on them.

        loss_scale: what losses are multiplied by for their backward passes, and gradients then divided by.
        with_norm: measure the gradients' norm, which reads them once more and makes nothing wait.
        Errors    RunError for data without negatives, or an image that cannot be read.
        """
        try:
            batch = self.source.draw(images_seen)
        except (ValueError, OSError) as error:
            raise RunError(str(error)) from error
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        energy_sums = torch.zeros(batch.num_columns, dtype=torch.float64, device=self.ranks.device)
        parts = batch.micro_batches(self.micro_batch, separable=self.method.separable)
        score = partial(self.loss.backward, self.net)
        for loss, energies in self.placement.backward(score, parts, loss_scale):
            loss_sum += loss
            energy_sums += energies
        flags = torch.stack([~self.optimizer.finite(), self._stop_requested()]).double()
        squares = [self.optimizer.squared_norm() / self.placement.copies] if with_norm else []
        totals = torch.cat([flags, loss_sum[None], *(square[None] for square in squares), energy_sums])
        return partial(self._result, self.ranks.sum(totals), with_norm)

    def _result(self, totals: torch.Tensor, with_norm: bool) -> StepResult:
        # SYNC: loss and gradients decide whether the update may be made.
        overflows, stops, loss, *energies = totals.tolist()
        squares = energies.pop(0) if with_norm else None
        num_images = self.source.batch_size
        return StepResult(
            loss=loss / num_images,
            energies=[energy / num_images for energy in energies],
            finite=math.isfinite(loss) and overflows == 0,
            stop=stops > 0,
            gradient_norm=None if squares is None else math.sqrt(squares),
        )

    def _stop_requested(self) -> torch.Tensor:
        return torch.full((), self.stop.requested, device=self.ranks.device)  # not copied from the host
