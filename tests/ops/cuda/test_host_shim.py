"""The CUDA kernels' own source, run on the host under cuda_shim.h, against the reference.

Sizes reach every path: a warp or a block a row, large rows, rows past the shared memory (`shared_limit`),
aligned or not, more tensors than one launch's parameters hold.
"""

import itertools
import math

import pytest
import torch

from mclr_fast.ops.reference.adam_norm_ema_ import adam_norm_ema_
from mclr_fast.ops.reference.weight_norm_scale import weight_norm_scale

SMALL = [(3, 5), (2, 8), (1, 2), (2, 3, 3, 3), (5, 16, 3, 3), (3, 24, 1, 1), (0, 4, 3, 3), (9, 64)]
LARGE = [(2, 136, 3, 3), (1, 133, 3, 3), (1, 520, 3, 3), (1, 1000, 3, 3), (1, 1100)]
TINY_SHARED = 1024  # large rows are then read twice
GUARD = 16  # numbers around a result that must stay as they are


def guarded(shape, dtype, offset=0):
    """A tensor amid a buffer of NaNs, `offset` numbers past an aligned address, and the buffer."""
    buffer = torch.full((math.prod(shape) + 2 * GUARD,), math.nan, dtype=dtype)
    assert buffer.data_ptr() % 16 == 0
    x = buffer[GUARD + offset :][: math.prod(shape)].view(shape)
    return x, buffer


def guards_hold(x, buffer):
    outside = torch.ones_like(buffer, dtype=torch.bool)
    outside[x.storage_offset() :][: x.numel()] = False
    return bool(buffer[outside].isnan().all())


def rows_last(x):
    """[out, *taps, in]: how a channels_last convolution weight lies in memory."""
    return x.movedim(1, -1)


def assert_close(found, eager, truth):
    """Lists: at most twice the reference's own error, and a unit in the last place of the largest."""
    dtype = found[0].dtype
    found, eager, truth = (torch.cat([x.double().flatten() for x in xs]) for xs in (found, eager, truth))
    limit = 2 * (eager - truth).abs().amax() + torch.finfo(dtype).eps * truth.abs().amax()
    assert (found - truth).abs().amax() <= limit


def weights_of(shapes, with_gain, offset):
    weights = [torch.zeros(math.prod(s) + 4)[offset:][: math.prod(s)].view(s).normal_() for s in shapes]
    gains = [torch.tensor([0.3 + i % 3]) if with_gain(i) else None for i in range(len(shapes))]
    return weights, gains


def eager_and_truth(weights, gains, dtype, cotangents):
    """Results and gradients of the reference in float32, and of the formula in float64."""
    for precision in (torch.float32, torch.float64):
        w = [x.to(precision).requires_grad_() for x in weights]
        g = [None if x is None else x.to(precision).requires_grad_() for x in gains]
        pairs = list(zip(w, g, strict=True))
        if precision is torch.float32:
            out = weight_norm_scale(w, g, [dtype] * len(w))
        else:
            k = [x[0].numel() if len(x) else 1 for x in w]
            norm = [1e-4 + x.flatten(1).norm(dim=1) / n**0.5 for x, n in zip(w, k, strict=True)]
            out = [
                x / s.view(-1, *[1] * (x.ndim - 1)) * (1.0 if y is None else y) / n**0.5
                for (x, y), s, n in zip(pairs, norm, k, strict=True)
            ]
        inputs = w + [x for x in g if x is not None]
        grads = torch.autograd.grad(
            out, inputs, [c.to(o.dtype) for c, o in zip(cotangents, out, strict=True)]
        )
        yield [x.detach() for x in out], grads


def run_weights(host, weights, gains, dtype, cotangents, offset, **how):
    """Both directions under the shim; results, gradients and bytes read and written by each."""
    outs = [guarded(rows_last(w).shape, dtype, offset) for w in weights]
    grads = [guarded(w.shape, torch.float32, offset) for w in weights]
    grad_gains = [None if g is None else torch.full((1,), math.nan) for g in gains]
    given = []
    for w, c in zip(weights, cotangents, strict=True):
        x, _ = guarded(rows_last(w).shape, dtype, offset)
        given.append(x.copy_(rows_last(c)))
    workspace = torch.empty(sum(len(w) for w in weights))
    host.reset(**how)
    host.forward(weights, gains, [x for x, _ in outs])
    forward = host.counts
    host.reset(**how)
    host.backward(given, weights, gains, [x for x, _ in grads], grad_gains, workspace)
    backward = host.counts
    assert all(itertools.starmap(guards_hold, outs + grads))
    out = [x.movedim(-1, 1) for x, _ in outs]
    return out, [x for x, _ in grads] + [g for g in grad_gains if g is not None], forward, backward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("shapes", "offset", "shared_limit", "launches"),
    [
        (SMALL * 10, 0, 232448, 2),
        (SMALL, 1, 232448, 1),
        (LARGE, 0, 232448, 3),
        (LARGE[:3], 1, TINY_SHARED, 1),
    ],
    ids=["small", "small-unaligned", "large", "large-unstaged-unaligned"],
)
def test_weight_norm_scale(host, dtype, shapes, offset, shared_limit, launches):
    weights, gains = weights_of(shapes, lambda i: i % 3 != 1, offset)
    if len(weights[0]) > 2:
        weights[0][1] = 0.0  # a row without a norm
    cotangents = [torch.randn_like(w).to(dtype) for w in weights]
    how = dict(shared_limit=shared_limit)
    out, grads, forward, _ = run_weights(host, weights, gains, dtype, cotangents, offset, **how)
    assert forward[2] == launches
    (eager, eager_grads), (truth, true_grads) = eager_and_truth(weights, gains, dtype, cotangents)
    assert_close(out, eager, truth)
    assert_close(*(x[: len(weights)] for x in (grads, eager_grads, true_grads)))
    with_gain = [i for i, gain in enumerate(gains) if gain is not None]
    for i, found, exact in zip(with_gain, grads[len(weights) :], true_grads[len(weights) :], strict=True):
        terms = truth[i] / gains[i] * cotangents[i]  # their sum may cancel
        assert (found - exact).abs() <= 1e-6 * terms.abs().sum()


@pytest.mark.parametrize("shared_limit", [232448, TINY_SHARED])
def test_no_barrier_is_missing(host, shared_limit):
    """The same bits when threads run in the reverse order, and again."""
    weights, gains = weights_of([*SMALL, *LARGE[:2]], lambda i: True, 0)
    cotangents = [torch.randn_like(w).bfloat16() for w in weights]
    results = []
    for reverse in (False, True):
        how = dict(reverse=reverse, shared_limit=shared_limit)
        out, grads, *_ = run_weights(host, weights, gains, torch.bfloat16, cotangents, 0, **how)
        results.append(out + grads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_norm_scale_moves_each_byte_once(host, dtype):
    """Without gains, of which every thread reads its row's."""
    weights, gains = weights_of([(4, 64, 3, 3), (16, 64), (2, 160, 3, 3)], lambda i: False, 0)
    cotangents = [torch.randn_like(w).to(dtype) for w in weights]
    *_, forward, backward = run_weights(host, weights, gains, dtype, cotangents, 0)
    numel, size = sum(w.numel() for w in weights), torch.finfo(dtype).bits // 8
    assert forward[:2] == (4 * numel, size * numel)
    assert backward[:2] == ((4 + size) * numel, 4 * numel)


ADAM = dict(lr=0.02, betas=(0.9, 0.99), eps=1e-8)
PARAMETERS = [(1,), (3, 5), (2, 5, 3, 3), (9, 64), (0, 3), (2, 130, 3, 3), (1, 1000, 3, 3), (3, 2000)]
DECAYS = (0.0, 0.95)


def run_adam(host, shapes, num_averages, offset, steps=2, **how):
    """Steps under the shim and by the reference in float32 and float64: three lists of all states."""
    normalized = [len(shape) > 1 and shape[-1] != 2000 for shape in shapes]
    states = [[guarded(s, torch.float32, offset) for s in shapes] for _ in range(3 + num_averages)]
    for kind, state in enumerate(states):
        for x, _ in state:
            x.copy_(torch.randn(x.shape).square() if kind == 2 else torch.randn(x.shape))
    copies = [[[x.to(p) for x, _ in state] for state in states] for p in (torch.float32, torch.float64)]
    host.reset(**how)
    for step in range(1, steps + 1):
        grads = [guarded(s, torch.float32, offset)[0].normal_() for s in shapes]
        for kept in copies:
            averages = list(zip(kept[3:], DECAYS, strict=False))
            g = [x.to(p.dtype) for x, p in zip(grads, kept[0], strict=True)]
            adam_norm_ema_(kept[0], g, *kept[1:3], averages, normalized, step=step, **ADAM)
        found = [[x for x, _ in state] for state in states]
        averages = list(zip(found[3:], DECAYS, strict=False))
        host.adam(found[0], grads, found[1], found[2], averages, normalized, step=step, **ADAM)
    assert all(guards_hold(x, buffer) for state in states for x, buffer in state)
    return found, *copies


@pytest.mark.parametrize("num_averages", [0, 1, 2])
@pytest.mark.parametrize(
    ("shapes", "offset", "shared_limit"),
    [(PARAMETERS, 0, 232448), (PARAMETERS[:6], 1, TINY_SHARED), (PARAMETERS[:4] * 30, 0, 232448)],
    ids=["all-rows", "unaligned-unstaged", "many"],
)
def test_adam_norm_ema_(host, num_averages, shapes, offset, shared_limit):
    found, eager, truth = run_adam(host, shapes, num_averages, offset, shared_limit=shared_limit)
    for state in zip(found, eager, truth, strict=True):
        assert_close(*state)


def test_adam_norm_ema_moves_each_byte_once(host):
    """States read and written once, gradients read once; the same bits in the reverse order of threads."""
    shapes = [(8, 64), (2, 130, 3, 3), (4096,), (3, 1000, 3, 3)]
    found = []
    for reverse in (False, True):
        torch.manual_seed(0)
        found.append(run_adam(host, shapes, 2, 0, steps=1, reverse=reverse)[0])
        read, written, _ = host.counts
        numel = sum(math.prod(shape) for shape in shapes)
        assert read == 4 * 6 * numel and written == 4 * 5 * numel
    for a, b in zip(*found, strict=True):
        assert all(itertools.starmap(torch.equal, zip(a, b, strict=True)))
