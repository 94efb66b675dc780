"""Public op: -log p of tokens under a language head, without its logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import _choice, _head_chunks, _library, _native
from ._layout import as_float32
from .reference.linear_cross_entropy import linear_cross_entropy as reference

PRODUCT = 1 << 20  # numbers of a product in half precision that are added up at once


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    coefficients: Tensor | Callable[[Tensor, slice], Tensor] | None = None,
) -> Tensor:
    """-log softmax(hidden weight^T + bias)[target] of every token, from a chunk of logits at a time.

    Shapes    hidden: [..., D], weight: [V,D], targets: int64 [...], bias: [V] -> nll [...]. coefficients:
              d loss / d nll where that is known beforehand, with as many dimensions as targets or fewer,
              the first ones (one a row: [B] or [B,1] for targets [B,L]). Where it follows from the nll of a
              row of targets [N, ...], a function: (nll [n, ...], slice of the rows) -> [n] or more.
    Dtypes    hidden floating, and products in its dtype; weight and bias any; nll float32 (float64: float64).
    Formats   contiguous; others are copied.                        Devices   any.
    Gradient  hidden, weight, bias, the last two summed in float32. Without coefficients the backward pass
              makes the logits again. With them the gradients come with nll, and what comes back for nll has
              to be the coefficients times one number: else RuntimeError on the CPU, elsewhere NaN.
    Cost      products of 2 T V D FLOPs: 3 with coefficients, 4 without, forward alone 1. Beside the results
              16 MiB for a chunk's logits (with a function those of a row at least), and weight in hidden's
              dtype where it has another.
    Errors    ValueError naming the argument whose shape or dtype does not fit, and for a token that the
              vocabulary does not have (on the CPU; elsewhere its nll and the gradients are NaN).
    Source    section 3.5's exact likelihoods; gradients with the loss, by chunks: Liger (arXiv 2410.10989).
    """
    _check(hidden, weight, targets, bias, coefficients)
    if not _choice.fused("linear_cross_entropy", hidden):
        return reference(hidden, weight, targets, bias)
    rows, tokens = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    wanted = [x is not None and x.requires_grad for x in (hidden, weight, bias)]
    is_function = callable(coefficients)
    if coefficients is None or not (torch.is_grad_enabled() and any(wanted)):
        nll, _ = _forward(rows, weight, bias, tokens)
    elif is_function and (torch.compiler.is_compiling() or hidden.device.type == "meta"):
        nll, _ = _forward(rows, weight, bias, tokens)  # what is traced calls no function of values
    elif is_function:
        nll = _ByRows.apply(rows, weight, bias, targets, coefficients, wanted)
    else:
        (known,) = as_float32(_head_chunks.every_token(coefficients.detach(), targets.shape))
        nll, *_ = _known(rows, weight, bias, tokens, known, wanted)
    return nll.view(targets.shape)


def _check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    coefficients: Tensor | Callable | None,
) -> None:
    if weight.ndim != 2 or hidden.ndim == 0 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"weight must be [V,D] and hidden [...,D], not {list(weight.shape)} and {list(hidden.shape)}."
        )
    if targets.shape != hidden.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets must be int64 {list(hidden.shape[:-1])} to go with hidden, "
            f"not {targets.dtype} {list(targets.shape)}."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{len(weight)}] to go with weight, not {list(bias.shape)}.")
    if callable(coefficients):
        if targets.ndim == 0:
            raise ValueError("coefficients can be a function for targets [N, ...] only: these have no rows.")
    elif coefficients is not None:
        _head_chunks.every_token(coefficients, targets.shape)
    # What is compiled or lies on a GPU is not looked at: there such a token's results are NaN.
    if not torch.compiler.is_compiling() and type(targets) is Tensor and targets.device.type == "cpu":
        _check_tokens(targets, len(weight))


def _check_tokens(targets: Tensor, vocab: int) -> None:
    if targets.numel() == 0:
        return
    least, most = (int(x) for x in targets.aminmax())
    if least < 0 or most >= vocab:
        raise ValueError(
            f"targets has token {least if least < 0 else most}, which a vocabulary of {vocab} does not have: "
            f"tokens are 0 to {vocab - 1}."
        )


class _Kernels:
    """`_head_chunks.Kernels` on the CPU: the products are torch's."""

    def __init__(self, bias: Tensor | None):
        self.bias = None if bias is None else bias.float().contiguous()

    def logits(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        torch.mm(hidden, weight.t(), out=out)

    def loss(self, logits, targets, coefficients, nll, level) -> None:
        sizes = logits.shape
        _native.cpu().linear_cross_entropy_forward(
            _native.code(logits), logits, self.bias, targets, coefficients, nll, *level, *sizes
        )

    def gradient(self, logits, targets, level, grad) -> None:
        _native.cpu().linear_cross_entropy_backward(
            _native.code(logits), logits, self.bias, targets, *level, grad, *logits.shape
        )

    def add_product(self, total: Tensor, a: Tensor, b: Tensor, adds: bool) -> None:
        if a.dtype is torch.float32:
            total.addmm_(a.t(), b, beta=int(adds))
            return
        size = max(PRODUCT // max(b.shape[1], 1), 1)
        for sums, part in zip(total.split(size), a.split(size, dim=1), strict=True):
            product = torch.mm(part.t(), b)
            self.add_rows(sums.view(-1), product.view(1, -1), adds)

    def add_rows(self, total: Tensor, a: Tensor, adds: bool) -> None:
        _native.cpu().linear_cross_entropy_add_rows(_native.code(a), a, total, adds, *a.shape)


def _gpu(bias: Tensor | None) -> _head_chunks.Kernels:
    from .triton_kernels import linear_cross_entropy  # imports triton

    return linear_cross_entropy.Kernels(bias)


def _forward_on(kernels, hidden, weight, bias, targets):
    return _head_chunks.loss(kernels(bias), hidden, weight, targets.contiguous())


def _forward_fake(hidden, weight, bias, targets):
    level = torch.empty(2, len(targets), dtype=torch.float32, device=targets.device)
    return torch.empty_like(level[0]), level


def _backward_on(kernels, grad, hidden, weight, bias, targets, level, wanted):
    grad, targets, level = grad.contiguous(), targets.contiguous(), level.contiguous()
    found = _head_chunks.gradients(kernels(bias), grad, hidden, weight, targets, level, wanted)
    return _own_dtypes(found, weight, bias)


def _backward_fake(grad, hidden, weight, bias, targets, level, wanted):
    like = (hidden, weight, weight[:, 0] if bias is None else bias)
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format) if is_wanted else x.new_empty(0)
        for x, is_wanted in zip(like, wanted, strict=True)
    )


def _known_on(kernels, hidden, weight, bias, targets, coefficients, wanted):
    rows = (hidden, weight, targets.contiguous(), coefficients.contiguous())
    nll, found = _head_chunks.loss_and_gradients(kernels(bias), *rows, wanted)
    return nll, *_own_dtypes(found, weight, bias)


def _known_fake(hidden, weight, bias, targets, coefficients, wanted):
    nll, level = _forward_fake(hidden, weight, bias, targets)
    return nll, *_backward_fake(coefficients, hidden, weight, bias, targets, level, wanted)


def _own_dtypes(found: _head_chunks.Gradients, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    return (
        found.hidden,
        found.weight.to(weight.dtype),
        found.bias.to((weight if bias is None else bias).dtype),
    )


OPERANDS = "Tensor hidden, Tensor weight, Tensor? bias, Tensor targets"
GRADIENTS = "Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias"
_forward = _library.define(
    f"linear_cross_entropy({OPERANDS}) -> (Tensor nll, Tensor level)",
    cpu=partial(_forward_on, _Kernels),
    fake=_forward_fake,
    cuda=partial(_forward_on, _gpu),
)
_backward = _library.define(
    f"linear_cross_entropy_backward(Tensor grad, {OPERANDS}, Tensor level, bool[] wanted) -> ({GRADIENTS})",
    cpu=partial(_backward_on, _Kernels),
    fake=_backward_fake,
    cuda=partial(_backward_on, _gpu),
)
_known = _library.define(
    f"linear_cross_entropy_known({OPERANDS}, Tensor coefficients, bool[] wanted)"
    f" -> (Tensor nll, {GRADIENTS})",
    cpu=partial(_known_on, _Kernels),
    fake=_known_fake,
    cuda=partial(_known_on, _gpu),
)


def _save(ctx, arguments, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*arguments, output[1])


def _gradient(ctx, grad, _):
    wanted = list(ctx.needs_input_grad[:3])
    found = _backward(grad, *ctx.saved_tensors, wanted)
    return *_those_wanted(found, wanted), None


def _save_known(ctx, arguments, output):
    ctx.mark_non_differentiable(*output[1:])
    *_, coefficients, ctx.wanted = arguments
    ctx.save_for_backward(coefficients, *output[1:])


def _gradient_known(ctx, grad, *_):
    coefficients, *found = ctx.saved_tensors
    factor = _common_factor(grad, coefficients)
    if factor is not None:
        found = [(x * factor).to(x.dtype) for x in found]
    return *_those_wanted(found, ctx.wanted), None, None, None


def _those_wanted(gradients, wanted: list[bool]) -> list[Tensor | None]:
    return [x if is_wanted else None for x, is_wanted in zip(gradients, wanted, strict=True)]


def _common_factor(grad: Tensor, coefficients: Tensor) -> Tensor | None:
    """The number f with grad = f coefficients; None for 1, where that can be had for nothing."""
    # Compilers pass subclasses, and a GPU would have to be waited for.
    at_hand = type(grad) is Tensor and grad.device.type == "cpu"
    if at_hand and torch.equal(grad, coefficients):
        return None
    largest = coefficients.abs().amax() if len(grad) else coefficients.new_ones(())
    unit = coefficients / largest.clamp(min=torch.finfo(torch.float32).tiny)
    factor = (grad * unit).sum() / (coefficients * unit).sum()
    factor = torch.where(coefficients.count_nonzero() == 0, 1.0, factor)
    error = (grad - factor * coefficients).abs() <= 1e-4 * (factor * largest).abs()
    fits = error.all()
    if at_hand and not fits:
        raise RuntimeError(
            "linear_cross_entropy made its gradients for the coefficients that it was given, but nll's own "
            "gradient is no multiple of them: give it the loss's coefficients, or none."
        )
    return torch.where(fits, factor, torch.nan)


class _ByRows(torch.autograd.Function):
    """Not a registered op: those take no functions."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, coefficients, wanted):
        kernels = (_gpu if hidden.is_cuda else _Kernels)(bias)
        nll, known, found = _head_chunks.loss_and_gradients_by_rows(
            kernels, hidden, weight, targets, coefficients, wanted
        )
        ctx.wanted = wanted
        ctx.save_for_backward(known, *_own_dtypes(found, weight, bias))
        return nll

    @staticmethod
    def backward(ctx, grad):
        return _gradient_known(ctx, grad)


def _forward_flops(hidden, weight, *_, **__) -> int:
    return 2 * hidden[0] * weight[0] * weight[1]


def _known_flops(hidden, weight, bias, targets, coefficients, wanted, **_) -> int:
    return (1 + sum(wanted[:2])) * _forward_flops(hidden, weight)


def _backward_flops(grad, hidden, weight, bias, targets, level, wanted, **_) -> int:
    return (1 + sum(wanted[:2])) * _forward_flops(hidden, weight)


_library.FLOPS |= {
    _forward.overload.overloadpacket: _forward_flops,
    _known.overload.overloadpacket: _known_flops,
    _backward.overload.overloadpacket: _backward_flops,
}
_library.differentiable(_forward, _save, _gradient)
_library.differentiable(_known, _save_known, _gradient_known)
