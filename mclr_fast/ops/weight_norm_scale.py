"""Public op: effective weights of magnitude-preserving layers, all layers at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _choice, _library, _native
from .reference.weight_norm_scale import weight_norm_scale as reference


def weight_norm_scale(
    weights: Sequence[Tensor], gains: Sequence[Tensor | None], dtypes: Sequence[torch.dtype]
) -> list[Tensor]:
    """normalize(weight per output channel) gain / sqrt(fan_in) of each, then cast.

    Shapes    weights: [out, in, ...] each -> same, 4-dim ones channels_last; gains: [1] or None = 1, each;
              dtypes: of the results.
    Dtypes    weights and gains float32; results float32, bfloat16 or (on a GPU) float16; math in float32.
    Gradient  weights and gains.                    Cost      reads and writes every weight once.
    Errors    ValueError for lists of unequal lengths.
    Source    EDM2 (arXiv 2312.02696), eq. 47.
    """
    _check(weights, gains, dtypes)
    if not _fused(weights, dtypes):
        return reference(weights, gains, dtypes)
    codes = [_native.DTYPES.index(dtype) for dtype in dtypes]
    return _forward(list(weights), list(gains), codes)


def weight_norm_scale_grads(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    gains: Sequence[Tensor | None],
    scale: float | Tensor = 1.0,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Gradients of weights and gains from `scale` times those of the effective weights.

    That is `weight_norm_scale` backwards; the scale is a factor of what it multiplies by anyhow. An element
    that is not finite makes its whole row so, but for rows of zeros.

    Shapes    grads: as the weights, of any dtype of `weight_norm_scale`'s results; scale: a number or [1]
              -> float32, as weights and gains (None where the gain is).
    """
    if weights and (isinstance(scale, Tensor) or scale != 1.0):
        # The weights' gradients are linear in the gain, the gains' do not depend on it.
        factor = scale if isinstance(scale, Tensor) else weights[0].new_full((1,), scale)
        scaled = [factor if gain is None else gain.detach() * factor for gain in gains]
        grad_weights, grad_gains = weight_norm_scale_grads(grads, weights, scaled)
        return grad_weights, [
            None if gain is None else grad * factor for grad, gain in zip(grad_gains, gains, strict=True)
        ]
    dtypes = [grad.dtype for grad in grads]
    _check(weights, gains, dtypes)
    if _fused(weights, dtypes):
        grad_weights, grad_gains = _backward(list(grads), list(weights), list(gains))
        return grad_weights, [
            None if gain is None else grad for grad, gain in zip(grad_gains, gains, strict=True)
        ]
    inputs = [weight.detach().requires_grad_() for weight in weights]
    scales = [None if gain is None else gain.detach().requires_grad_() for gain in gains]
    with torch.enable_grad():
        made = reference(inputs, scales, dtypes)
    wanted = inputs + [scale for scale in scales if scale is not None]
    found = iter(torch.autograd.grad(made, wanted, list(grads)))
    return [next(found) for _ in inputs], [None if scale is None else next(found) for scale in scales]


def _check(*lists: Sequence) -> None:
    lengths = [len(values) for values in lists]
    if len(set(lengths)) > 1:
        raise ValueError(f"one gain (or None) and one dtype a weight are needed, not lists of {lengths}.")


def _fused(weights: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> bool:
    op = "weight_norm_scale"
    if not weights or any(weight.dtype != torch.float32 for weight in weights):
        return False
    return all(_choice.fused_for(op, weights[0].device, dtype) for dtype in set(dtypes))


def _format(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format


def _sizes(weight: Tensor) -> tuple[int, int, int]:
    """rows, in_channels, taps."""
    return len(weight), weight.shape[1], weight.shape[2:].numel()


def _made(weights, gains, codes):
    """Results without data."""
    return [
        torch.empty_like(weight, dtype=_native.DTYPES[code], memory_format=_format(weight))
        for weight, code in zip(weights, codes, strict=True)
    ]


def _made_grads(grads, weights, gains):
    """Gradients without data; an empty one where there is no gain."""
    grad_gains = [
        weight.new_empty(0 if gain is None else 1) for weight, gain in zip(weights, gains, strict=True)
    ]
    return [torch.empty_like(weight, memory_format=torch.contiguous_format) for weight in weights], grad_gains


# A row of a table is a `mclr_weight` of csrc/include/mclr_fast.h.


def _forward_rows(weights, gains, codes):
    made, rows = _made(weights, gains, codes), []
    for weight, gain, out, code in zip(weights, gains, made, codes, strict=True):
        rows.append((weight.contiguous(), gain, out, None, None, None, *_sizes(weight), code))
    return made, rows


def _backward_rows(grads, weights, gains):
    made, rows = _made_grads(grads, weights, gains), []
    for grad, weight, gain, grad_weight, grad_gain in zip(grads, weights, gains, *made, strict=True):
        grad = grad.contiguous(memory_format=_format(weight))
        grad_gain = None if gain is None else grad_gain
        sizes = (*_sizes(weight), _native.code(grad))
        rows.append((weight.contiguous(), gain, None, grad, grad_weight, grad_gain, *sizes))
    return made, rows


def _forward_cpu(weights, gains, codes):
    made, rows = _forward_rows(weights, gains, codes)
    _native.cpu().weight_norm_scale_forward(_native.table(rows), len(rows))
    return made


def _backward_cpu(grads, weights, gains):
    made, rows = _backward_rows(grads, weights, gains)
    _native.cpu().weight_norm_scale_backward(_native.table(rows), len(rows))
    return made


def _forward_cuda(weights, gains, codes):
    made, rows = _forward_rows(weights, gains, codes)
    _native.launch("weight_norm_scale_forward", weights[0].device, _native.table(rows), len(rows))
    return made


def _backward_cuda(grads, weights, gains):
    made, rows = _backward_rows(grads, weights, gains)
    num_rows = sum(len(weight) for weight, gain in zip(weights, gains, strict=True) if gain is not None)
    workspace = weights[0].new_empty(num_rows)
    _native.launch("weight_norm_scale_backward", workspace.device, _native.table(rows), len(rows), workspace)
    return made


_forward = _library.define(
    "weight_norm_scale(Tensor[] weights, Tensor?[] gains, int[] codes) -> Tensor[]",
    cpu=_forward_cpu,
    fake=_made,
    cuda=_forward_cuda,
)
_backward = _library.define(
    "weight_norm_scale_backward(Tensor[] grads, Tensor[] weights, Tensor?[] gains) -> (Tensor[], Tensor[])",
    cpu=_backward_cpu,
    fake=_made_grads,
    cuda=_backward_cuda,
)


class _WeightNormScale(torch.autograd.Function):
    """Autograd sees only tensors that are arguments themselves: the lists come flat."""

    @staticmethod
    def forward(ctx, codes, *tensors):
        weights, gains = tensors[: len(codes)], tensors[len(codes) :]
        ctx.save_for_backward(*tensors)
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(_forward(list(weights), list(gains), codes))

    @staticmethod
    def backward(ctx, *grads):
        weights, gains = ctx.saved_tensors[: len(grads)], ctx.saved_tensors[len(grads) :]
        grad_weights, grad_gains = _backward(list(grads), list(weights), list(gains))
        grad_gains = [None if gain is None else grad for gain, grad in zip(gains, grad_gains, strict=True)]
        return None, *grad_weights, *grad_gains


_library.autograd(
    _forward, lambda weights, gains, codes: list(_WeightNormScale.apply(codes, *weights, *gains))
)
