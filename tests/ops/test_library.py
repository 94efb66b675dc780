"""Who gets an op through torch.library, and that the way past it computes the same."""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mclr_fast import ops
from mclr_fast.ops import _library, _native, mp_sum_clip, weight_norm_scale

FORWARD_SILU = mp_sum_clip.__globals__["_forward_silu"]
WEIGHTS = weight_norm_scale.__globals__["_forward"]
OVERLOAD = torch.ops.mclr_fast.mp_sum_clip_silu.default


@pytest.fixture(autouse=True)
def implementation():
    """The fused ops, or nothing to test."""
    if _native.load("cpu")[0] is None:
        pytest.skip(_native.load("cpu")[1])
    torch.manual_seed(0)
    with ops.using("fused"):
        yield


@pytest.fixture
def seen(monkeypatch):
    """Something where the library's op was called."""
    op, calls = FORWARD_SILU, []
    overload = op.overload
    monkeypatch.setattr(op, "overload", lambda *arguments: calls.append(1) or overload(*arguments))
    return calls


def operands(**options):
    return [torch.randn(2, 8, 3, 3, **options) for _ in range(2)]


def call(a, b):
    return ops.mp_sum_clip_silu(a, b, 0.3, 0.5)


class Functions(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Own(torch.Tensor):
    """A subclass as users write them."""


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("kind", [torch.Tensor, torch.nn.Parameter])
def test_plain_tensors_pass_it_by(seen, kind, requires_grad):
    a, b = operands()
    if kind is torch.nn.Parameter:
        a, b = (torch.nn.Parameter(x, requires_grad=requires_grad) for x in (a, b))
    out, silu = call(a.requires_grad_(requires_grad), b)
    assert not seen and out.requires_grad is requires_grad
    if requires_grad:
        assert torch.autograd.grad((out + silu).sum(), a)[0].isfinite().all()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_both_ways_give_the_same_bits(seen, requires_grad):
    results = []
    for mode in (torch.enable_grad(), Dispatches()):
        torch.manual_seed(0)
        a, b = (x.requires_grad_(requires_grad) for x in operands())
        with mode:
            found = list(call(a, b))
            if requires_grad:
                found += torch.autograd.grad(found[0].sum() + 3 * found[1].sum(), (a, b))
        results.append(found)
    assert seen
    for direct, through_library in zip(*results, strict=True):
        assert torch.equal(direct, through_library) and direct.stride() == through_library.stride()


@pytest.mark.parametrize("mode", [Functions, Dispatches])
def test_who_watches_sees_it(seen, mode):
    with mode():
        call(*operands())
    assert seen


def test_a_profile_names_the_op():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call(*operands())
    assert OVERLOAD._schema.name in {event.key for event in profile.key_averages()}


def test_subclasses_see_it(seen):
    a, b = operands()
    call(a.as_subclass(Own), b)
    assert seen


def test_transforms_see_it(seen):
    a, b = operands()
    out, _ = torch.func.vmap(call)(a[:, None], b[:, None])
    assert seen and torch.equal(out[:, 0], call(a, b)[0])


def test_a_view_with_the_sign_pending_is_read_with_it(seen):
    a, b = operands()
    assert torch.equal(call(torch._neg_view(a), b)[0], call(-a, b)[0])
    assert seen


@pytest.mark.parametrize("place", [0, 1, 2])
def test_operands_of_several_devices_are_the_librarys(place):
    tensors = [torch.ones(1), torch.ones(1), torch.nn.Parameter(torch.ones(1))]
    assert _library._plain_device(tensors) == "cpu"
    tensors[place] = torch.ones(1, device="meta")
    assert _library._plain_device(tensors) == ""


def test_sparse_memory_is_not_read(seen):
    a, b = operands()
    with pytest.raises((RuntimeError, NotImplementedError)):
        FORWARD_SILU(a, b.to_sparse(), 0.3, 0.5)
    assert seen


def test_gradients_of_lists(seen):
    weight, gain = torch.randn(4, 3).requires_grad_(), torch.ones(1).requires_grad_()
    (made,) = ops.weight_norm_scale([weight], [gain], [torch.float32])
    (same,) = WEIGHTS.overload([weight], [gain], [0])
    for found in (made, same):
        assert torch.equal(found, made)
        grads = torch.autograd.grad(found.square().sum(), (weight, gain))
        assert all(grad.isfinite().all() for grad in grads)


def test_compiled_it_is_the_librarys():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    a, b = operands()
    found = torch.compile(call, fullgraph=True, backend=backend)(a, b)
    assert OVERLOAD in {node.target for node in graphs[0].graph.nodes}
    assert torch.equal(found[0], call(a, b)[0])


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
def test_gradients_have_no_gradient(seen):
    """An op's backward is none that can be differentiated, and says so."""
    a, b = (x.requires_grad_() for x in operands())
    out, _ = call(a, b)
    (grad,) = torch.autograd.grad(out.square().sum(), a, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), a)


def test_what_has_no_gradient_asks_for_none():
    x, sigma = torch.randn(2, 3, 4, 4).requires_grad_(), torch.ones(2)
    for watched in (contextlib.nullcontext(), Dispatches()):
        with watched:
            results = ops.noisy_input(x, sigma, eps=torch.zeros(2, 3, 4, 4))
            results += ops.heun_update(x, x, 1.0, x, 1.0, 0.5)
        assert not any(result.requires_grad for result in results)
