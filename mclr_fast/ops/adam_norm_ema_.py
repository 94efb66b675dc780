"""Public op: the whole update of a step, over all parameters in one pass."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

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
    kept = [average for average, _ in averages]
    lengths = [len(values) for values in (grads, exp_avg, exp_avg_sq, normalized, *kept)]
    if any(length != len(params) for length in lengths):
        raise ValueError(
            f"{len(params)} params need as many grads, moments, flags and averages, not {lengths}."
        )
    if not _serves(params, states=[params, exp_avg, exp_avg_sq, *kept]):
        reference(
            params, grads, exp_avg, exp_avg_sq, averages, normalized, step=step, lr=lr, betas=betas, eps=eps
        )
        return
    one_pass, others = averages[:MOST_AVERAGES], averages[MOST_AVERAGES:]
    first, second, *_ = [*(list(average) for average, _ in one_pass), [], []]
    decays = [beta for _, beta in one_pass]
    moments = list(exp_avg), list(exp_avg_sq)
    grads = [grad.contiguous() for grad in grads]
    at_once = [flag and not others for flag in normalized]
    with torch.no_grad():
        _update(list(params), grads, *moments, first, second, at_once, step, lr, *betas, eps, decays)
        for average, beta in others:
            torch._foreach_lerp_(list(average), list(params), 1 - beta)
    if others:
        force_weight_norm_(param for param, flag in zip(params, normalized, strict=True) if flag)


def prepare_adam_norm_ema_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avg: Sequence[Tensor],
    exp_avg_sq: Sequence[Tensor],
    averages: Sequence[Sequence[Tensor]],
    normalized: Sequence[bool],
) -> Callable[[Sequence[float], int, float, tuple[float, float], float], None]:
    """`adam_norm_ema_` of these tensors as update(decays, step, lr, betas, eps): its launches are left.

    For those who have time before the gradients are there, and none afterwards. The tensors must stay.
    """
    grads = [grad.contiguous() for grad in grads]
    states = [params, exp_avg, exp_avg_sq, *averages]
    if len(averages) > MOST_AVERAGES or not _serves(params, states):

        def update(decays, step, lr, betas, eps):
            pairs = list(zip(averages, decays, strict=True))
            adam_norm_ema_(
                params, grads, exp_avg, exp_avg_sq, pairs, normalized, step=step, lr=lr, betas=betas, eps=eps
            )

        return update
    first, second, *_ = [*averages, [], []]
    rows = _rows(params, grads, exp_avg, exp_avg_sq, first, second, normalized)
    table, device = _native.table(rows), params[0].device

    def update(decays, step, lr, betas, eps):
        arguments = table, len(rows), _adam(step, lr, *betas, eps, decays)
        if device.type == "cpu":
            _native.cpu().adam_norm_ema(*arguments)
        else:
            _native.launch("adam_norm_ema", device, *arguments)

    return update


def _serves(params: Sequence[Tensor], states: Sequence[Sequence[Tensor]]) -> bool:
    """The fused update takes float32 tensors of one device; the states, which it writes, contiguous."""
    if not params:
        return False
    if any(x.dtype != torch.float32 or not x.is_contiguous() for values in states for x in values):
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


def _adam(step, lr, beta1, beta2, eps, decays):
    """A `mclr_adam`."""
    bias1, bias2_sqrt = 1 - beta1**step, (1 - beta2**step) ** 0.5
    average_beta = [*decays, 0.0, 0.0][:MOST_AVERAGES]
    numbers = lr, beta1, beta2, eps, bias1, bias2_sqrt, *average_beta
    return (ctypes.c_double * len(numbers))(*numbers)


def _c_arguments(
    params, grads, exp_avg, exp_avg_sq, first, second, normalized, step, lr, beta1, beta2, eps, decays
):
    rows = _rows(params, grads, exp_avg, exp_avg_sq, first, second, normalized)
    return _native.table(rows), len(rows), _adam(step, lr, beta1, beta2, eps, decays)


def _update_cpu(params, *arguments):
    _native.cpu().adam_norm_ema(*_c_arguments(params, *arguments))


def _update_cuda(params, *arguments):
    _native.launch("adam_norm_ema", params[0].device, *_c_arguments(params, *arguments))


_update = _library.define(
    "adam_norm_ema_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avg, Tensor(c!)[] exp_avg_sq, "
    "Tensor(d!)[] first, Tensor(e!)[] second, bool[] normalized, int step, float lr, float beta1, "
    "float beta2, float eps, float[] decays) -> ()",
    cpu=_update_cpu,
    fake=lambda *arguments: None,
    cuda=_update_cuda,
)
