"""Public op: the whole update of a step, over all parameters in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _choice, _library, _native
from .reference.adam_norm_ema_ import adam_norm_ema_ as reference
from .reference.adam_norm_ema_ import force_weight_norm_

MOST_AVERAGES = 2  # of one pass


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
    """One Adam step (no weight decay), EMA of the result, then forced weight normalisation, in place.

    Shapes    params, grads, exp_avg, exp_avg_sq: aligned lists, all written but grads; averages: pairs
              (list aligned with params, decay beta): average <- beta average + (1-beta) param;
              normalized: which params are normalised per output channel.
    Dtypes    float32.                   Order     Adam, averages, normalisation: EDM2's.
    Cost      every state is read and written once, every gradient read once. A third average and each after
              it, and with them the normalisation, are passes of their own.
    Errors    ValueError for lists that are not aligned.
    Source    Kingma & Ba 2015, Algorithm 1; `step` counts from 1. EDM2, eq. 66.
    """
    lists = [grads, exp_avg, exp_avg_sq, normalized, *(average for average, _ in averages)]
    if any(len(values) != len(params) for values in lists):
        lengths = [len(values) for values in lists]
        raise ValueError(
            f"{len(params)} params need as many grads, moments, flags and averages, not {lengths}."
        )
    numbers = (lr, *betas, eps, 1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5)
    if not _serves(params, lists[:3] + lists[4:]):
        reference(
            params, grads, exp_avg, exp_avg_sq, averages, normalized, step=step, lr=lr, betas=betas, eps=eps
        )
        return
    one_pass, others = averages[:MOST_AVERAGES], averages[MOST_AVERAGES:]
    first, second, *_ = [list(average) for average, _ in one_pass] + [[], []]
    grads = [grad.contiguous() for grad in grads]
    numbers += tuple(beta for _, beta in one_pass)
    at_once = [flag and not others for flag in normalized]
    with torch.no_grad():
        _update(list(params), grads, list(exp_avg), list(exp_avg_sq), first, second, at_once, numbers)
        for average, beta in others:
            torch._foreach_lerp_(list(average), list(params), 1 - beta)
    if others:
        force_weight_norm_(param for param, flag in zip(params, normalized, strict=True) if flag)


def _serves(params: Sequence[Tensor], others: Sequence[Sequence[Tensor]]) -> bool:
    """The fused update takes float32 tensors of one device, contiguous."""
    if not params:
        return False
    states = [x for values in (params, *others[1:]) for x in values]
    if any(x.dtype != torch.float32 or not x.is_contiguous() for x in states):
        return False
    return _choice.fused("adam_norm_ema_", params[0])


def _rows(params, grads, exp_avg, exp_avg_sq, first, second, normalized):
    """A `mclr_parameter` of csrc/include/mclr_fast.h each; empty parameters are left out."""
    nothing = [None] * len(params)
    rows = []
    for param, *states, flag in zip(
        params, grads, exp_avg, exp_avg_sq, first or nothing, second or nothing, normalized, strict=True
    ):
        if param.numel():
            rows.append((param, *states, len(param), param[0].numel(), int(flag)))
    return rows


def _numbers(numbers: Sequence[float]) -> Tensor:
    """A `mclr_adam`."""
    return torch.tensor([*numbers, 0, 0][:8], dtype=torch.float64)


def _update_cpu(params, grads, exp_avg, exp_avg_sq, first, second, normalized, numbers):
    rows = _rows(params, grads, exp_avg, exp_avg_sq, first, second, normalized)
    _native.cpu().adam_norm_ema(_native.table(rows), len(rows), _numbers(numbers))


def _update_cuda(params, grads, exp_avg, exp_avg_sq, first, second, normalized, numbers):
    rows = _rows(params, grads, exp_avg, exp_avg_sq, first, second, normalized)
    _native.launch("adam_norm_ema", params[0].device, _native.table(rows), len(rows), _numbers(numbers))


_update = _library.define(
    "adam_norm_ema_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avg, Tensor(c!)[] exp_avg_sq, "
    "Tensor(d!)[] first, Tensor(e!)[] second, bool[] normalized, float[] numbers) -> ()",
    cpu=_update_cpu,
    fake=lambda *arguments: None,
    cuda=_update_cuda,
)
