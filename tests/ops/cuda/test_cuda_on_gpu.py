"""The CUDA kernels on a GPU: numerics, capture into a CUDA graph, bandwidth (printed with pytest -s)."""

import pytest
import torch

from mclr_fast.ops.reference.adam_norm_ema_ import adam_norm_ema_
from mclr_fast.ops.reference.weight_norm_scale import weight_norm_scale

pytestmark = pytest.mark.gpu

# EDM2-L's widths and odd ones; the largest row is 92 KB, the one past every GPU's shared memory 288 KB.
SHAPES = [(320, 5, 3, 3), (640, 2560, 3, 3), (1280, 1280), (3840, 1280, 1, 1), (7, 33, 3, 3), (3, 8000, 3, 3)]
ADAM = dict(lr=0.01, betas=(0.9, 0.99), eps=1e-8)


def tensors():
    weights = [torch.randn(s, device="cuda") for s in SHAPES]
    gains = [torch.full((1,), 0.7, device="cuda") if i % 2 else None for i in range(len(SHAPES))]
    return weights, gains


def weight_call(device, weights, gains, dtype):
    """Both directions as one function without allocations, and its results."""
    outs = [torch.empty(w.movedim(1, -1).shape, dtype=dtype, device="cuda") for w in weights]
    grad_outs = [torch.randn_like(x) for x in outs]
    grads = [torch.empty_like(w) for w in weights]
    grad_gains = [None if g is None else torch.empty_like(g) for g in gains]
    workspace = torch.empty(sum(len(w) for w in weights), device="cuda")

    def call():
        device.forward(weights, gains, outs)
        device.backward(grad_outs, weights, gains, grads, grad_gains, workspace)

    return call, outs, grad_outs, grads, grad_gains


def bandwidth(call, num_bytes, name):
    """Prints bytes over time of `call`, the caches flushed before each run."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(20):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    seconds = sorted(times)[len(times) // 2]
    rate, spread = num_bytes / seconds / 1e9, f"{min(times) * 1e6:.0f} to {max(times) * 1e6:.0f} us"
    print(f"\n{name}: {rate:.0f} GB/s, median of {len(times)}, {spread}, {torch.cuda.get_device_name()}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weight_norm_scale(device, dtype):
    weights, gains = tensors()
    call, outs, grad_outs, grads, grad_gains = weight_call(device, weights, gains, dtype)
    call()
    inputs = [w.double().requires_grad_() for w in weights]
    scales = [None if g is None else g.double().requires_grad_() for g in gains]
    truth = weight_norm_scale(inputs, scales, [torch.float64] * len(inputs))
    torch.autograd.backward(truth, [g.double().movedim(-1, 1) for g in grad_outs])
    for out, grad, exact, w in zip(outs, grads, truth, inputs, strict=True):
        limit = 2 * torch.finfo(dtype).eps * exact.abs().amax()
        assert (out.movedim(-1, 1) - exact).abs().amax() <= limit
        assert (grad - w.grad).abs().amax() <= 1e-5 * w.grad.abs().amax()
    for found, exact, out, grad in zip(grad_gains, scales, outs, grad_outs, strict=True):
        if found is not None:
            assert (found - exact.grad).abs() <= 1e-5 * (out.double() * grad.double()).abs().sum()


def test_same_bits_twice_and_in_a_graph(device):
    weights, gains = tensors()
    call, outs, _, grads, grad_gains = weight_call(device, weights, gains, torch.bfloat16)
    call()
    results = [*outs, *grads, *(g for g in grad_gains if g is not None)]
    first = [x.clone() for x in results]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    for x in results:
        x.zero_()
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(results, first, strict=True))


def adam_states(num_averages):
    shapes = [*SHAPES, (1,), (5000,)]
    states = [[torch.randn(s, device="cuda") for s in shapes] for _ in range(3 + num_averages)]
    for x in states[2]:
        x.square_()
    return states, [torch.randn(s, device="cuda") for s in shapes], [len(s) > 1 for s in shapes]


@pytest.mark.parametrize("num_averages", [0, 1, 2])
def test_adam_norm_ema_(device, num_averages):
    """In a graph: one capture, one replay, against the reference in float64."""
    states, grads, normalized = adam_states(num_averages)
    truth = [[x.double() for x in state] for state in states]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        averages = list(zip(states[3:], (0.95, 0.3), strict=False))
        device.adam(states[0], grads, *states[1:3], averages, normalized, step=3, **ADAM)
    graph.replay()
    averages = list(zip(truth[3:], (0.95, 0.3), strict=False))
    doubles = [g.double() for g in grads]
    adam_norm_ema_(truth[0], doubles, *truth[1:3], averages, normalized, step=3, **ADAM)
    for found, exact in zip(states, truth, strict=True):
        for x, y in zip(found, exact, strict=True):
            assert (x - y).abs().amax() <= 2e-6 * y.abs().amax()


def test_bandwidth(device):
    """Prints; asserts only that a captured call runs at all."""
    weights, gains = [torch.randn(1280, 1280, 3, 3, device="cuda") for _ in range(8)], [None] * 8
    numel = sum(w.numel() for w in weights)
    call, outs, *_ = weight_call(device, weights, gains, torch.bfloat16)
    bandwidth(lambda: device.forward(weights, gains, outs), 6 * numel, "weight_norm_scale forward")
    bandwidth(call, (6 + 10) * numel, "weight_norm_scale forward and backward")
    states = [[torch.randn_like(w) for w in weights] for _ in range(5)]
    grads = [torch.randn_like(w) for w in weights]
    for x in states[2]:
        x.square_()
    averages = [(states[3], 0.9), (states[4], 0.99)]

    def step():
        device.adam(*states[:1], grads, *states[1:3], averages, [True] * 8, step=1, **ADAM)

    bandwidth(step, 11 * 4 * numel, "adam_norm_ema_ with two averages")
    assert all(bool(x.isfinite().all()) for x in states[0] + outs)
