"""Registration of the fused ops with torch.library, so that torch.compile, FSDP2 and opcheck know them.

The dispatcher takes as long as a small network's kernels do, twice where a gradient is wanted. What it is for
are tracers, modes and tensor subclasses: without them a call goes straight to the device's launcher.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

NAMESPACE = "mclr_fast"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)
FLOPS: dict[torch._ops.OpOverloadPacket, Callable[..., int]] = {}
"""Of ops that multiply matrices, as FlopCounterMode's custom_mapping: the operands' shapes -> operations."""


class Op:
    """A defined op, called with positional arguments.

    Attributes: overload, the op that torch.library knows; launchers, by the type of device.
    """

    def __init__(self, overload: torch._ops.OpOverload, launchers: dict[str, Callable]):
        self.overload, self.launchers = overload, launchers
        self._with_gradient: dict[str, Callable] = {}
        kinds = [str(argument.type) for argument in overload._schema.arguments]
        with_tensors = [place for place, kind in enumerate(kinds) if "Tensor" in kind]
        self._lists = [place for place in with_tensors if kinds[place].startswith("List[")]
        self._tensors = [place for place in with_tensors if place not in self._lists]

    def __call__(self, *arguments):
        if _observed():
            return self.overload(*arguments)
        tensors = [arguments[place] for place in self._tensors if arguments[place] is not None]
        for place in self._lists:
            tensors += [x for x in arguments[place] if x is not None]
        device = _plain_device(tensors)
        if torch.is_grad_enabled() and any([x.requires_grad for x in tensors]):
            return self._with_gradient.get(device, self.overload)(*arguments)
        return self.launchers.get(device, self.overload)(*arguments)


def _observed() -> bool:
    """Whether anybody wants to see the op called: a compiler, a mode, a transform, a profiler."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    )


def _plain_device(tensors: list[Tensor]) -> str:
    """ "cpu" or "cuda" if all are dense tensors of it, whose memory holds their values; else ""."""
    on_cpu = on_cuda = True
    for x in tensors:
        if type(x) not in _PLAIN_TYPES or x.layout is not torch.strided or x.is_neg():
            return ""
        on_cpu, on_cuda = on_cpu and x.is_cpu, on_cuda and x.is_cuda
    return "cpu" if on_cpu else "cuda" if on_cuda else ""


def define(schema: str, *, cpu: Callable, fake: Callable, cuda: str | Callable) -> Op:
    """Define an op and give its implementations.

    cpu: the ctypes launcher; fake: results without data; cuda: a launcher too, or
    "module:function" below `mclr_fast.ops`, imported at the first call on a GPU.
    """
    name = schema.partition("(")[0]
    launchers = {"cpu": cpu, "cuda": _later(cuda) if isinstance(cuda, str) else cuda}
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    for device, launcher in launchers.items():
        _LIBRARY.impl(name, launcher, device.upper())
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    return Op(getattr(getattr(torch.ops, NAMESPACE), name).default, launchers)


def _later(place: str) -> Callable:
    module, function = place.split(":")

    @cache
    def found() -> Callable:
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)

    return lambda *arguments: found()(*arguments)


def differentiable(op: Op, save: Callable, backward: Callable) -> None:
    """Give an op its gradient.

    save(ctx, arguments, output) keeps what backward(ctx, *grads) needs; grads of unused outputs are None.
    A torch.autograd.Function below the dispatcher costs about a third less per call than
    torch.library.register_autograd, which small networks notice.
    """

    def below_autograd(*arguments):
        with torch._C._AutoDispatchBelowAutograd():
            return op.overload(*arguments)

    through_library = _function(below_autograd, save, backward)

    def apply(*arguments):
        if torch.is_grad_enabled() and any(getattr(a, "requires_grad", False) for a in arguments):
            return through_library(*arguments)
        return below_autograd(*arguments)

    _LIBRARY.impl(op.overload._schema.name.partition("::")[2], apply, "Autograd")
    for device, launcher in op.launchers.items():
        op._with_gradient[device] = _function(launcher, save, backward)


def without_gradient(op: Op) -> None:
    """Let an op's results never ask for a gradient, whatever its arguments do."""

    def below_autograd(*arguments):
        with torch._C._AutoDispatchBelowAutograd(), torch.no_grad():
            return op.overload(*arguments)

    autograd(op, below_autograd)
    op._with_gradient = op.launchers


def _function(run: Callable, save: Callable, backward: Callable) -> Callable:
    """run(*arguments) with a gradient."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            ctx.set_materialize_grads(False)
            output = run(*arguments)
            save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            return backward(ctx, *grads)

    return Differentiable.apply


def autograd(op: Op, apply: Callable) -> None:
    """Let `apply(*arguments)`, which calls the op below autograd, serve where gradients may be wanted."""
    _LIBRARY.impl(op.overload._schema.name.partition("::")[2], apply, "Autograd")
    op._with_gradient = dict.fromkeys(op.launchers, apply)
