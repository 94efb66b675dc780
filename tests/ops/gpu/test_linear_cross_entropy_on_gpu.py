"""The head's loss on a CUDA device, products included: numbers, CUDA graphs, memory, no waiting."""

import pytest
import torch

pytest.importorskip("triton")

from mclr_fast import ops
from mclr_fast.ops import _head_chunks

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def implementation():
    torch.manual_seed(0)
    with ops.using("fused"):
        yield


def make(rows, length, vocab, width, dtype):
    """hidden, weight and bias as a net that trains in `dtype` has them, targets, a coefficient a row."""
    hidden = torch.randn(rows, length, width, device="cuda").to(dtype).requires_grad_()
    weight = (torch.randn(vocab, width, device="cuda") / width**0.5).requires_grad_()
    bias = torch.randn(vocab, device="cuda").requires_grad_()
    targets = torch.randint(vocab, (rows, length), device="cuda")
    coefficients = torch.ones(rows, device="cuda")
    coefficients[1:] = -1 / 3
    return (hidden, weight, bias), targets, coefficients


def step(inputs, targets, coefficients, known):
    hidden, weight, bias = inputs
    nll = ops.linear_cross_entropy(
        hidden, weight, targets, bias=bias, coefficients=coefficients if known else None
    )
    return [nll.detach(), *torch.autograd.grad(nll.sum(1), inputs, coefficients)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("known", [False, True])
def test_numbers(dtype, known, monkeypatch):
    """In four chunks: at most twice the eager error, plus a unit of the products' dtype."""
    monkeypatch.setattr(_head_chunks, "CHUNK", 500_000)
    inputs, targets, coefficients = make(4, 120, 4096, 256, dtype)
    found = step(inputs, targets, coefficients, known)
    with ops.using("reference"):
        eager = step(inputs, targets, coefficients, False)
        exact = [x.detach().double().requires_grad_() for x in inputs]
        truth = step(exact, targets, coefficients.double(), False)
    for value, plain, true in zip(found, eager, truth, strict=True):
        assert value.dtype == plain.dtype
        unit = torch.finfo(dtype).eps * true.abs().amax()
        assert (value - true).abs().amax() <= 2 * (plain - true).abs().amax() + unit


@pytest.mark.parametrize("known", [False, True])
def test_a_graph_replays_it_and_nothing_waits(known):
    inputs, targets, coefficients = make(4, 680, 4096, 256, torch.bfloat16)
    expected = step(inputs, targets, coefficients, known)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs, targets, coefficients, known)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(inputs, targets, coefficients, known)
    graph.replay()
    for a, b in zip(captured, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2 * b.abs().amax().item())


def test_a_token_out_of_the_vocabulary_makes_nan():
    inputs, targets, coefficients = make(2, 10, 64, 32, torch.bfloat16)
    targets[1, 3] = 64
    nll, grad_hidden, *_ = step(inputs, targets, coefficients, True)
    assert nll.isnan().sum() == 1 and nll[1, 3].isnan()
    assert grad_hidden.isnan().any(2).sum() == 1


def test_another_gradient_than_the_coefficients_makes_nan():
    inputs, targets, coefficients = make(2, 10, 64, 32, torch.bfloat16)
    hidden, weight, bias = inputs
    nll = ops.linear_cross_entropy(hidden, weight, targets, bias=bias, coefficients=coefficients)
    assert torch.autograd.grad(nll.sum(), hidden)[0].isnan().all()


def test_memory_is_a_quarter_of_the_logits_path():
    """Beside operands and results, which both have."""
    inputs, targets, coefficients = make(16, 680, 4096, 1024, torch.bfloat16)

    def peak(choice):
        with ops.using(choice):
            step(inputs, targets, coefficients, choice == "fused")
            torch.cuda.synchronize()  # SYNC: what was freed is counted
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            results = step(inputs, targets, coefficients, choice == "fused")
            own = sum(x.numel() * x.element_size() for x in results)
            return torch.cuda.max_memory_allocated() - before - own

    assert peak("fused") <= peak("reference") / 4
