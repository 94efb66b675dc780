"""The training step against Algorithm 1 as written, plain torch without its waste, and the floor.

Run: pytest benchmarks/ --benchmark-only
"""

import floor
import pytest
import torch
from baselines.algorithm1 import Algorithm1Step, algorithm1_loss, copy_of
from baselines.deduplicated import DeduplicatedStep, deduplicated_loss
from baselines.training import draw_batch
from interleave import interleave, record_times
from steps import SETTINGS, TrainerStep, build_nets, image_data

NETWORK_ERROR = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # relative, in the Euclidean norm


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@torch.no_grad()
def check_networks(ours, plain, data, dtype):
    """The plain network is the package's, and Algorithm 1's loss the deduplicated one."""
    batch = draw_batch(data, 4, 2)
    expected = ours(batch.x_noisy, batch.sigma, batch.labels).flatten(0, 1)
    x_noisy, sigma = (v.repeat_interleave(3, dim=0) for v in (batch.x_noisy, batch.sigma))
    one_hot = torch.nn.functional.one_hot(batch.labels.flatten(), data.num_classes).float()
    for net in {copy_of(plain, dtype), plain}:
        assert relative_error(net(x_noisy, sigma, one_hot), expected) < NETWORK_ERROR[dtype]
    losses = [loss(plain, batch, data.num_classes) for loss in (algorithm1_loss, deduplicated_loss)]
    scale = (batch.weight.sum() * batch.x[0].numel()).item()
    torch.testing.assert_close(*losses, rtol=0, atol=1e-6 * scale)


def compiled_step(setting, plain, data, backend):
    """The compiled baseline, its loss checked against the same in eager mode."""
    net = copy_of(plain, setting.dtype)
    step = DeduplicatedStep(net, data, setting.num_images, setting.num_negatives, backend=backend)
    batch = draw_batch(data, setting.num_images, setting.num_negatives)
    expected = deduplicated_loss(net, batch, data.num_classes)
    scale = (batch.weight.mean() * batch.x[0].numel()).item()
    limit = NETWORK_ERROR[setting.dtype] * scale
    torch.testing.assert_close(step.loss(batch), expected, rtol=0, atol=limit)
    return step


def record_step(ours):
    """Of one of the package's steps: the calls that its floor is made of, and the bytes of the fused ops."""
    with floor.BytesMoved() as moved, floor.record() as calls:
        ours()
    return calls, moved.total


def checked_floor(calls, setting):
    """The floor, its convolutions' FLOPs held to the architecture's formula; the share that sharing saves."""
    replay = floor.Floor(calls)
    least, everything = floor.network_flops(setting.num_evaluations, setting.num_images, **setting.net)
    assert least <= replay.convolution_flops <= everything
    return replay, 1 - replay.convolution_flops / everything


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.row)
def test_step(benchmark, suite, tmp_path, setting):
    if suite.quick:
        setting = setting.shrunk()
    data = image_data(setting.net)
    net, plain = build_nets(setting)
    check_networks(net.eval(), plain, data, setting.dtype)
    ours = TrainerStep(setting, net, tmp_path)
    ours()
    calls, num_bytes = record_step(ours)
    replay, saved = checked_floor(calls, setting)

    sizes = (data, setting.num_images, setting.num_negatives)
    others = {"naive": Algorithm1Step(copy_of(plain, torch.float32), *sizes)}
    if setting.dtype != torch.float32:
        others["naive_same_dtype"] = Algorithm1Step(copy_of(plain, setting.dtype), *sizes)
    others["deduplicated"] = DeduplicatedStep(copy_of(plain, setting.dtype), *sizes)
    info = benchmark.extra_info
    if setting.no_compile:
        info["no_compile"] = setting.no_compile
    else:
        others["compiled"] = compiled_step(setting, plain, data, suite.backend)
        info["compile_seconds"] = others["compiled"].compile_seconds
    others["floor"] = replay

    info.update(row=setting.row, dtype=str(setting.dtype), num_negatives=setting.num_negatives)
    info.update(machine=suite.machine, evaluations=setting.num_evaluations)
    info.update(floor_GFLOP=replay.flops / 1e9, floor_calls=len(replay.replays))
    info.update(convolution_flops_saved_by_sharing=saved, fused_GB=num_bytes / 1e9)
    times = interleave(benchmark, ours, others, rounds=suite.rounds(setting.rounds))
    if times is None:
        return
    record_times(benchmark, times)
    own, same_dtype = times["ours"], times.get("naive_same_dtype", times["naive"])
    ratios = {
        "over_naive": (times["naive"], own),
        "over_naive_same_dtype": (same_dtype, own),
        "precision": (times["naive"], same_dtype),
        "deduplication": (same_dtype, times["deduplicated"]),
        "fusion": (times["deduplicated"], own),
        "over_floor": (own, times["floor"]),
    }
    if "compiled" in times:
        ratios["over_compile"] = (times["compiled"], own)
    ratios = {key: a.ratios(b) for key, (a, b) in ratios.items()}
    # What over_floor would be if the fused ops took as long as a copy of their bytes, and nothing else ran.
    copying = num_bytes / (suite.machine["copy_fp32_GBs"] * 1e9)
    ratios["floor_and_bytes"] = [1 + copying / seconds for seconds in times["floor"].seconds]
    suite.record(benchmark, ratios)
