"""contrast_loss: energies, loss and the predictions' gradient; at best one read and one write of them."""

import importlib

import machine
import pytest
import torch
from interleave import interleave, record_times
from pointwise import compare, dtypes
from shapes import LABELS, PAST_CACHE_IMAGE, PREDICTIONS

from mclr_fast import ops

PREDICTION_BYTES = 512 << 20
ROUNDS = 5
reference = importlib.import_module("mclr_fast.ops.reference.contrast_loss").contrast_loss


def make(count, shape, dtype):
    pred = torch.empty(count * LABELS, *shape, dtype=dtype, memory_format=torch.channels_last).normal_()
    x, x_noisy = (torch.randn(count, *shape) for _ in range(2))
    sigma, weight = torch.rand(count) + 0.1, torch.rand(count)
    coefficients = torch.tensor([1.0] + [-1 / (LABELS - 1)] * (LABELS - 1)).expand(count, LABELS)
    return pred.unflatten(0, (count, LABELS)).requires_grad_(), x, x_noisy, sigma, weight, coefficients


def step(function, args):
    """Loss and gradient."""

    def run():
        loss, energy = function(*args, sigma_data=0.5, output="network")
        return loss.detach(), energy, *torch.autograd.grad(loss, args[0])

    return run


def check(args, dtype):
    expected = step(reference, args)()
    scales = [
        expected[1].sum(),
        expected[1].max(),
        expected[2].float().abs().max(),
    ]  # the loss is a difference
    for found, truth, scale in zip(step(ops.contrast_loss, args)(), expected, scales, strict=True):
        rounding = torch.finfo(found.dtype).eps * scale.item()
        assert (found.float() - truth.float()).abs().max().item() <= 16 * rounding


@dtypes
def test_past_cache(benchmark, suite, dtype):
    images = make(8, PAST_CACHE_IMAGE, dtype)
    check(images, dtype)
    target = 1 << 20 if suite.quick else PREDICTION_BYTES
    count = target // (images[0][0].numel() * dtype.itemsize)
    args = make(count, PAST_CACHE_IMAGE, dtype)
    least = sum(t.numel() * t.element_size() for t in (args[0], args[0], args[1], args[2]))
    copy = machine.Copy(target)
    info = benchmark.extra_info
    info.update(row="contrast-loss", dtype=str(dtype), size="past cache", least_MB=least / 1e6)
    info["machine"] = suite.machine
    ours, torch_eager = (step(function, args) for function in (ops.contrast_loss, reference))
    others = {"copy": copy, "torch": torch_eager}
    times = interleave(benchmark, ours, others, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    shares = [ratio * least / copy.num_bytes for ratio in times["copy"].ratios(times["ours"])]
    ratios = {"share_of_copy": shares, "over_torch": times["torch"].ratios(times["ours"])}
    suite.record(benchmark, ratios)


@dtypes
@pytest.mark.parametrize("shape", PREDICTIONS)
def test_network(benchmark, suite, dtype, shape):
    count, *rest = PREDICTIONS[shape]
    args = make(count, rest, dtype)
    check(args, dtype)
    torch._dynamo.reset()
    functions = {"ours": ops.contrast_loss, "torch": reference}
    functions["compiled"] = torch.compile(reference, dynamic=False, backend=suite.backend)
    info = benchmark.extra_info
    info.update(row="pointwise-contrast_loss", dtype=str(dtype), size="network", case=shape)
    info["machine"] = suite.machine
    compare(benchmark, suite, {name: step(function, args) for name, function in functions.items()})
