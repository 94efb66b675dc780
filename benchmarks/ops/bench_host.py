"""What a call of an op costs the host: microseconds at a size where the kernel itself takes next to none.

Run: pytest benchmarks/ops -k host --benchmark-only
"""

import pytest
import torch
from interleave import interleave, record_times
from pointwise import Run
from torch.utils._pytree import tree_map_only

from mclr_fast import ops

ROUNDS, CALLS = 40, 50
SHAPE = (1, 8, 2, 2)


def images(*shape):
    return torch.randn(shape or SHAPE).contiguous(memory_format=torch.channels_last)


def tokens():
    """Two branches' worth, of one image."""
    return torch.randn(1, 4, 8), torch.randn(1, 4, 8)


def trained(*tensors):
    return tuple(tensor.requires_grad_() for tensor in tensors)


def evaluations():
    """Of one image under two labels: pred, x, x_noisy, sigma, weight."""
    pred = torch.randn(1, 2, *SHAPE[1:])
    return *trained(pred), torch.randn(SHAPE), torch.randn(SHAPE), torch.ones(1), torch.ones(1)


def adam(params, grads, exp_avg, exp_avg_sq, average):
    ops.adam_norm_ema_(
        params, grads, exp_avg, exp_avg_sq, [(average, 0.9)], [True],
        step=1, lr=1e-4, betas=(0.9, 0.99), eps=1e-8,
    )  # fmt: skip
    return params


class Nothing(torch.autograd.Function):
    """What torch takes for any gradient that is written in Python: two operands, one result or two."""

    @staticmethod
    def forward(ctx, a, b, num_results):
        return tuple(x.detach() for x in (a, b)[:num_results])

    @staticmethod
    def backward(ctx, *grads):
        return grads[0], grads[-1], None


def cases():
    """Name -> function and arguments; torch's own are what the ops are compared with."""
    torch.manual_seed(0)
    pair = lambda: trained(images(), images())  # noqa: E731
    position = torch.zeros(1, dtype=torch.int64)
    return {
        "aten_add": (torch.add, pair()),
        "aten_conv1x1": (torch.nn.functional.conv2d, trained(images(), images(8, 8, 1, 1))),
        "python_1": (Nothing.apply, (*pair(), 1)),
        "python_2": (Nothing.apply, (*pair(), 2)),
        "adam_norm_ema_": (adam, tuple([torch.ones(8, 8)] for _ in range(5))),
        "contrast_loss": (ops.contrast_loss, (*evaluations(), torch.ones(1, 2))),
        "double_pixels": (ops.double_pixels, trained(images())),
        "gated_add": (ops.gated_add, trained(*tokens(), torch.randn(1, 8))),
        "heun_update": (ops.heun_update, (images(), images(), 1.0, images(), 1.0, 0.5)),
        "linear_cross_entropy": (
            ops.linear_cross_entropy,
            (*trained(torch.randn(4, 8), torch.randn(8, 8)), torch.zeros(4, dtype=torch.int64)),
        ),
        "modulate_layer_norm": (
            ops.modulate_layer_norm,
            (*trained(tokens()[0], torch.randn(1, 8), torch.randn(1, 8)), 1e-6, torch.float32),
        ),
        "modulate_silu": (ops.modulate_silu, trained(images(), torch.randn(1, 8))),
        "mp_cat_silu": (ops.mp_cat_silu, (*pair(), 0.5)),
        "mp_sum_clip": (ops.mp_sum_clip, (*pair(), 0.3, 256.0)),
        "mp_sum_clip_silu": (ops.mp_sum_clip_silu, (*pair(), 0.3, 256.0)),
        "noisy_input": (ops.noisy_input, (torch.randn(SHAPE), torch.ones(1), 0, 0, position)),
        "pixel_norm_silu": (ops.pixel_norm_silu, trained(images())),
        "qkv_norm": (ops.qkv_norm, (*trained(images(1, 24, 2, 2)), 1)),
        "weight_norm_scale": (
            ops.weight_norm_scale,
            ([*trained(torch.randn(8, 8, 3, 3))], [None], [torch.float32]),
        ),
        "weighted_sq_error": (ops.weighted_sq_error, evaluations()),
    }


CASES = cases()
WITHOUT_GRADIENT = {"adam_norm_ema_", "heun_update", "noisy_input"}


def calls(name, direction):
    """The case without a gradient, or forward and backward."""
    function, arguments = CASES[name]
    if direction == "forward":
        arguments = tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
    return getattr(Run(function, arguments), direction)


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("name", CASES)
def test_host(benchmark, suite, name, direction):
    """The least of the rounds' microseconds a call, and over the addition's of the same rounds."""
    assert set(ops.OPS) < set(CASES)
    if direction == "both" and name in WITHOUT_GRADIENT:
        pytest.skip("no gradient")
    benchmark.extra_info.update(row=f"host-{name}", direction=direction, machine=suite.machine)
    others = {"add": calls("aten_add", direction)}
    times = interleave(benchmark, calls(name, direction), others, rounds=suite.rounds(ROUNDS), calls=CALLS)
    if times is None:
        return
    record_times(benchmark, times)
    least = min(times["ours"].seconds)
    over = least / min(times["add"].seconds)
    suite.record(benchmark, {"microseconds": [least * 1e6], "over_aten_add": [over]})
