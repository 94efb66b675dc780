"""Registration of the fused ops with torch.library, so that torch.compile, FSDP2 and opcheck know them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

NAMESPACE = "mclr_fast"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
FLOPS: dict[torch._ops.OpOverloadPacket, Callable[..., int]] = {}
"""Of ops that multiply matrices, as FlopCounterMode's custom_mapping: the operands' shapes -> operations."""


def define(schema: str, *, cpu: Callable, fake: Callable, cuda: str | Callable) -> torch._ops.OpOverload:
    """Define an op and give its implementations; returns the overload to call.

    cpu: the ctypes launcher; fake: results without data; cuda: a launcher too, or
    "module:function" below `mclr_fast.ops`, imported at the first call on a GPU.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    _LIBRARY.impl(name, cpu, "CPU")
    _LIBRARY.impl(name, _later(cuda) if isinstance(cuda, str) else cuda, "CUDA")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def _later(place: str) -> Callable:
    module, function = place.split(":")

    def call(*arguments):
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)(*arguments)

    return call


def differentiable(overload: torch._ops.OpOverload, save: Callable, backward: Callable) -> None:
    """Give an op its gradient.

    save(ctx, arguments, output) keeps what backward(ctx, *grads) needs; grads of unused outputs are None.
    A torch.autograd.Function below the dispatcher costs about a third less per call than
    torch.library.register_autograd, which small networks notice.
    """

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            ctx.set_materialize_grads(False)
            with torch._C._AutoDispatchBelowAutograd():
                output = overload(*arguments)
            save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            return backward(ctx, *grads)

    def apply(*arguments):
        if torch.is_grad_enabled() and any(getattr(a, "requires_grad", False) for a in arguments):
            return Differentiable.apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*arguments)

    autograd(overload._schema.name.partition("::")[2], apply)


def autograd(name: str, apply: Callable) -> None:
    """Let `apply(*arguments)` serve the op wherever gradients may be wanted."""
    _LIBRARY.impl(name, apply, "Autograd")
