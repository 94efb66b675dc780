"""Optimizer step, weight averages and forced weight normalisation."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .magnitude_preserving import normalize


def force_weight_norm_(weights: Iterable[Tensor]) -> None:
    """weights <- normalize(weights per output channel), in place. Source: EDM2, eq. 66."""
    with torch.no_grad():
        for weight in weights:
            weight.copy_(normalize(weight))


def adam_norm_ema_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avg: Sequence[Tensor],
    exp_avg_sq: Sequence[Tensor],
    averages: Sequence[tuple[Sequence[Tensor], float]],
    normalized: Sequence[bool],
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One Adam step (no weight decay), EMA of the result, then forced weight normalisation.

    Shapes    params, grads, exp_avg, exp_avg_sq: aligned lists, all written but grads; averages: pairs
              (list aligned with params, decay beta): average <- beta average + (1-beta) param.
              normalized: which params are normalised per output channel.
    Order     Adam, averages, normalisation: EDM2's.
    Source    Kingma & Ba 2015, Algorithm 1; `step` counts from 1. EDM2, eq. 66.
    """
    beta1, beta2 = betas
    with torch.no_grad():
        torch._foreach_lerp_(exp_avg, grads, 1 - beta1)
        torch._foreach_mul_(exp_avg_sq, beta2)
        torch._foreach_addcmul_(exp_avg_sq, grads, grads, 1 - beta2)
        denominator = torch._foreach_sqrt(exp_avg_sq)
        torch._foreach_div_(denominator, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(denominator, eps)
        torch._foreach_addcdiv_(params, exp_avg, denominator, -lr / (1 - beta1**step))
        for average, beta in averages:
            torch._foreach_lerp_(average, params, 1 - beta)
        force_weight_norm_(param for param, flag in zip(params, normalized, strict=True) if flag)
