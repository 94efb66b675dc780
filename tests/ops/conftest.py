"""How an op is held to the truth, and the one tolerance of the op tests.

Every test here runs twice: on the plain-torch reference and on the fused implementation.
"""

import pytest
import torch

from mclr_fast import ops
from mclr_fast.ops import _choice

ULPS = (
    4  # units in the last place of a result's largest value that the reference may be off; about 2 are used
)


@pytest.fixture(params=["reference", "fused"], autouse=True)
def implementation(request):
    """Which implementation the test's ops run on ("fused" leaves float64 to the reference)."""
    torch.manual_seed(0)
    fused = _choice.available("modulate_silu", "cpu")  # whatever a GPU here has
    if request.param == "fused" and fused.implementation == "reference":
        pytest.skip(f"no fused ops here: {fused.reason}")
    with ops.using("reference" if request.param == "reference" else "auto"):
        yield request.param


@pytest.fixture(params=["contiguous", "channels_last"])
def layout(request):
    """Puts a 4-dim tensor into a memory format."""
    memory_format = getattr(torch, f"{request.param}_format", None) or torch.channels_last
    return lambda x: x.contiguous(memory_format=memory_format)


def _results(op, inputs, cotangents):
    """What op(*inputs) gives, and its gradients with respect to the inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    found = op(*inputs)
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    cotangents = cotangents or [torch.randn_like(y) for y in found]
    grads = torch.autograd.grad(
        found, inputs, [c.to(y.dtype) for c, y in zip(cotangents, found, strict=True)]
    )
    return found, list(grads), cotangents


@pytest.fixture
def assert_same(implementation):
    """assert_same(op, formula, *inputs, unit=None): results and gradients of `op` are those of `formula`.

    `formula` is written independently, and it and its gradients are evaluated in float64 at the values
    that the inputs have in their own dtype. The reference may be off by ULPS; a fused implementation by
    twice what the reference is off, and one unit in the last place. unit: the dtype whose last place that is,
    where products in between are rounded to a shorter one than the result's.
    """

    def assert_same(op, formula, *inputs, unit=None):
        with ops.using("reference"):
            eager, eager_grads, cotangents = _results(op, inputs, None)
        exact, exact_grads, _ = _results(
            formula, [x.double() for x in inputs], [c.double() for c in cotangents]
        )
        found, grads, _ = _results(op, inputs, cotangents)
        values = zip(found + grads, eager + eager_grads, exact + exact_grads, strict=True)
        for value, plain, truth in values:
            assert value.shape == truth.shape and value.dtype == plain.dtype
            if not truth.numel():
                continue
            ulp = torch.finfo(unit or value.dtype).eps * truth.abs().amax()
            limit = ULPS * ulp if implementation == "reference" else 2 * (plain - truth).abs().amax() + ulp
            assert bool(((value.double() - truth).abs() <= limit).all()), (value - truth).abs().max()

    return assert_same


@pytest.fixture
def assert_same_for_any_threads(implementation):
    """assert_same_for_any_threads(op, *inputs): the gradients have the same bits on one, two and three."""
    if implementation == "reference":
        pytest.skip("plain torch")

    def assert_same_for_any_threads(op, *inputs):
        found, cotangents, before = [], None, torch.get_num_threads()
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                _, grads, cotangents = _results(op, inputs, cotangents)
                found.append(grads)
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for each in found[1:] for a, b in zip(each, found[0], strict=True))

    return assert_same_for_any_threads
