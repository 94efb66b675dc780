"""Public op: the exit of a transformer's branch."""

from __future__ import annotations

from torch import Tensor

from . import _choice, _library, _native
from ._checks import check_tokens
from ._layout import as_float32
from .reference.gated_add import gated_add as reference


def gated_add(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate y: a branch's result goes back into the residual stream.

    Shapes    x, y: [B,L,C]; gate: [B,C], shared by an image's tokens -> [B,L,C].
    Dtypes    x, gate and the result float32; y float32 or bfloat16 (float16 on a GPU); math in float32.
    Gradient  x, whose gradient is the result's own, y and gate; keeps y and gate for backward. Sums over an
              image's tokens are made in a fixed order.
    Cost      reads x and y once, writes the result; memory bound; 2 FLOPs an element.
    Errors    ValueError for shapes that do not fit.
    Source    adaLN: DiT (arXiv 2212.09748), section 3.2; VAR (arXiv 2404.02905), section 4.
    """
    check_tokens(x, gate=gate)
    if y.shape != x.shape:
        raise ValueError(f"y must be {list(x.shape)}, as x is, not {list(y.shape)}.")
    known = y.dtype in _choice.DTYPES.get(x.device.type, ())
    if not known or not _choice.fused("gated_add", x):
        return reference(x, y, gate)
    x, gate = as_float32(x, gate)
    return _forward(x, y, gate)


def _forward_cpu(x, y, gate):
    out, x, y, gate = _forward_fake(x, y, gate), x.contiguous(), y.contiguous(), gate.contiguous()
    _native.cpu().gated_add_forward(_native.code(y), x, y, gate, out, *x.shape)
    return out


def _forward_fake(x, y, gate):
    return x.new_empty(x.shape)


def _backward_cpu(grad, y, gate):
    grads = _backward_fake(grad, y, gate)
    grad, y, gate = grad.contiguous(), y.contiguous(), gate.contiguous()
    _native.cpu().gated_add_backward(_native.code(y), grad, y, gate, *grads, *y.shape)
    return grads


def _backward_fake(grad, y, gate):
    return y.new_empty(y.shape), gate.new_empty(gate.shape)


_forward = _library.define(
    "gated_add(Tensor x, Tensor y, Tensor gate) -> Tensor",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.gated_add:forward",
)
_backward = _library.define(
    "gated_add_backward(Tensor grad, Tensor y, Tensor gate) -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    fake=_backward_fake,
    cuda="triton_kernels.gated_add:backward",
)


def _save(ctx, arguments, output):
    ctx.save_for_backward(*arguments[1:])


def _gradient(ctx, grad):
    return grad, *_backward(grad, *ctx.saved_tensors)


_library.differentiable(_forward, _save, _gradient)
