"""The floor records every convolution of a step, forward and backward, and counts it right."""

import floor
import pytest
import torch
from baselines.deduplicated import deduplicated_loss
from baselines.plain_net import PlainNet
from baselines.training import ImageData, draw_batch

from mclr_fast import ops
from mclr_fast.models.edm2 import Precond

NET = dict(
    img_resolution=8, img_channels=2, label_dim=4, model_channels=8, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), channels_per_head=8, logvar_channels=8,
)  # fmt: skip
NUM_IMAGES, NUM_NEGATIVES = 3, 2


def recorded(forward_backward):
    with floor.record() as calls:
        forward_backward()
    return calls


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return draw_batch(ImageData(4, (2, 8, 8)), NUM_IMAGES, NUM_NEGATIVES)


@pytest.fixture
def plain_calls(batch):
    net = PlainNet(**NET)
    return recorded(lambda: deduplicated_loss(net, batch, 4).backward())


def test_a_plain_step_has_the_formulas_flops(plain_calls):
    num_evaluations = NUM_IMAGES * (1 + NUM_NEGATIVES)
    _, everything = floor.network_flops(num_evaluations, NUM_IMAGES, **NET)
    assert floor.Floor(plain_calls).convolution_flops == everything


def test_the_packages_step_has_the_formulas_flops(batch):
    net = Precond(**NET)
    calls = recorded(lambda: net(batch.x_noisy, batch.sigma, batch.labels).square().sum().backward())
    least, everything = floor.network_flops(NUM_IMAGES * (1 + NUM_NEGATIVES), NUM_IMAGES, **NET)
    assert least <= floor.Floor(calls).convolution_flops < everything


def test_bytes_of_the_fused_ops_are_counted_once(fused_ops):
    y = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    emb = torch.randn(2, 8, requires_grad=True)
    with ops.using("fused"), floor.BytesMoved() as moved:
        (2 * ops.modulate_silu(y, emb)).sum().backward()
    # Forward: y, emb, result; backward: gradient, y, emb and two gradients.
    assert moved.total == 5 * y.nbytes + 3 * emb.nbytes


def test_backward_calls_are_recorded(plain_calls):
    names = [str(call.op) for call in plain_calls]
    forward, backward = (names.count(f"aten.convolution{end}.default") for end in ("", "_backward"))
    assert forward == backward > 10
    first = next(call for call in plain_calls[::-1] if call.op in floor.BACKWARD_CONVOLUTION)
    assert first.args[-1] == (False, True, False)  # the input convolution's input needs no gradient


def test_attention_is_recorded_and_replayed():
    q, k, v = (torch.randn(2, 2, 5, 16, requires_grad=True) for _ in range(3))
    attention = torch.nn.functional.scaled_dot_product_attention
    calls = recorded(lambda: attention(q, k, v).sum().backward())
    forward, backward = calls
    assert forward.op in floor.ATTENTION and backward.op in floor.ATTENTION_BACKWARD
    assert [call.flops for call in calls] == [products * 2 * 2 * 2 * 5 * 5 * 16 for products in (2, 5)]
    assert floor.Floor(calls)() >= 0  # seconds


@pytest.mark.parametrize("mask", [(True, True, False), (False, True, False), (True, False, False)])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (1, 1, 0), (3, 2, 1), (5, 1, 0)])
def test_convolution_formula_against_torchs_count(mask, kernel, stride, padding):
    x = torch.randn(2, 4, 9, 8, requires_grad=mask[0])
    weight = torch.randn(6, 4, kernel, kernel, requires_grad=mask[1])
    calls = recorded(
        lambda: torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding).sum().backward()
    )
    assert len(calls) == 2
    for call in calls:
        assert floor.convolution_flops(call) == call.flops > 0
    assert calls[1].flops == calls[0].flops * sum(mask)


def test_wrong_flops_are_refused():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    (call,) = recorded(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
    floor.Floor([call])
    with pytest.raises(AssertionError):
        floor.Floor([floor.Call(call.op, call.args, call.kwargs, call.flops // 2)])
    with pytest.raises(AssertionError, match="nothing was recorded"):
        floor.Floor([])


def test_replay_makes_the_same_calls(plain_calls):
    replay = floor.Floor(plain_calls)
    with floor.record() as calls:
        seconds = replay()
    assert seconds >= 0
    assert [(call.op, call.flops) for call in calls] == [(call.op, call.flops) for call in plain_calls]
    for again, call in zip(calls, plain_calls, strict=True):
        assert [a.shape for a in again.args if isinstance(a, floor.Operand)] == [
            a.shape for a in call.args if isinstance(a, floor.Operand)
        ]
