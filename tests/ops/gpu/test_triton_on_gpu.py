"""The Triton kernels on a CUDA device: numbers, CUDA graphs, share of the copy bandwidth.

tests/ops/triton_kernels runs natively there too; it has the odd shapes and the formats.
"""

import statistics

import pytest
import torch

pytest.importorskip("triton")

from triton_cases import CASES, noisy_input_case

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def implementation():
    """The kernels are called by name here, so nothing is chosen."""
    torch.manual_seed(0)


every_case = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])


def as_list(results):
    return list(results) if isinstance(results, tuple | list) else [results]


def run(case):
    """Values, gradients, and the cotangents they belong to."""
    values = as_list(case.forward(*case.inputs))
    cotangents = [torch.randn_like(v) for v in values]
    grads = as_list(case.backward(cotangents, values, *case.inputs)) if case.backward else []
    return values, grads, cotangents


def evaluate(case, inputs, cotangents, num_grads):
    inputs = [x.detach().requires_grad_(i < num_grads) for i, x in enumerate(inputs)]
    values = as_list(case.formula(*inputs))
    grads = torch.autograd.grad(values, inputs[:num_grads], cotangents) if num_grads else ()
    return [v.detach() for v in values] + list(grads)


@every_dtype
@every_case
def test_numbers(make, dtype):
    """At most twice the same-dtype eager error, plus one unit in the last place of the largest result."""
    case = make(2, 192, 32, dtype)
    values, grads, cotangents = run(case)
    eager = evaluate(case, case.inputs, cotangents, len(grads))
    exact = [x.double() for x in case.inputs]
    truth = evaluate(case, exact, [c.double() for c in cotangents], len(grads))
    for found, plain, true in zip(values + grads, eager, truth, strict=True):
        ulp = torch.finfo(found.dtype).eps * 2 ** true.abs().amax().log2().floor()
        limit = 2 * (plain.double() - true).abs().amax() + ulp
        if make is noisy_input_case and found.dtype == torch.float32:
            # Eager draws in float64; the kernel's float32 numbers agree to 1e-6 of them, scaled by sigma.
            limit = limit + 6e-6 * case.inputs[1].amax()
        assert bool((found.double() - true).abs().amax() <= limit)


@every_dtype
@every_case
def test_graph(make, dtype):
    """Forward and backward are captured, and a replay gives the very same numbers."""
    case = make(2, 192, 32, dtype)
    values, grads, cotangents = run(case)

    def step():
        values = as_list(case.forward(*case.inputs))
        return values + (as_list(case.backward(cotangents, values, *case.inputs)) if case.backward else [])

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(2):
        for result in captured:
            result.zero_()
        graph.replay()
        for found, expected in zip(captured, values + grads, strict=True):
            assert torch.equal(found, expected)


def seconds(function, repeats=20):
    """Median time of a call by CUDA events, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        stop.synchronize()  # SYNC: the measurement ends here
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times[2:])


def num_bytes(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors)


@pytest.fixture(scope="module")
def copy_bandwidth():
    """Bytes read and written a second by copying 1 GiB."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return num_bytes(source, target) / seconds(lambda: target.copy_(source))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@every_case
def test_bandwidth(make, dtype, copy_bandwidth, capsys):
    """At sizes past the cache, at least half of what a copy reaches, unless the case says otherwise."""
    case = make(64, 192, 64, dtype)
    values, grads, cotangents = run(case)
    shares = {}
    time = seconds(lambda: case.forward(*case.inputs))
    shares["forward"] = num_bytes(*case.inputs, *values) / time / copy_bandwidth
    if case.backward:
        time = seconds(lambda: case.backward(cotangents, values, *case.inputs))
        again = case.read_again(values, case.inputs)
        shares["backward"] = num_bytes(*cotangents, *again, *grads) / time / copy_bandwidth
    with capsys.disabled():
        text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        print(f"\n{make.__name__} {dtype}: {text} of {copy_bandwidth / 1e12:.2f} TB/s", end=" ")
    assert min(shares.values()) >= case.least_share
