"""The training step on a GPU, at NVIDIA's presets: against Algorithm 1, torch.compile and the floor.

Run: pytest benchmarks/bench_step_gpu.py --benchmark-only
"""

import gc

import floor
import pytest
import torch
from baselines.algorithm1 import Algorithm1Step, copy_of
from baselines.deduplicated import DeduplicatedStep
from baselines.training import draw_batch
from bench_step import NETWORK_ERROR, build_floor, relative_error
from interleave import interleave, record_times
from steps import GPU_SETTINGS, TrainerStep, build_nets, image_data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def waited_for(step):
    """The step, until the GPU has done it."""

    def call():
        result = step()
        torch.cuda.synchronize()  # SYNC: the measurement ends here
        return result if isinstance(result, float) else None

    return call


@torch.no_grad()
def check_networks(ours, plain, data, dtype):
    """The plain network, in float32 and in `dtype`, is the package's."""
    batch = draw_batch(data, 4, 2)
    x_noisy, sigma, labels = (v.cuda() for v in (batch.x_noisy, batch.sigma, batch.labels))
    expected = ours(x_noisy, sigma, labels).flatten(0, 1)
    x_noisy, sigma = (v.repeat_interleave(3, dim=0) for v in (x_noisy, sigma))
    one_hot = torch.nn.functional.one_hot(labels.flatten(), data.num_classes).float()
    for net in (copy_of(plain, dtype), plain):
        assert relative_error(net(x_noisy, sigma, one_hot), expected) < NETWORK_ERROR[dtype]


def copy_bandwidth() -> float:
    """Bytes read and written a second by copying 2 GiB, the best of ten."""
    source = torch.empty(1 << 29, device="cuda")
    target = torch.empty_like(source)
    copies = [floor.timed_on_gpu(lambda: target.copy_(source)) for _ in range(10)]
    return 2 * source.nbytes / min(copies)


@pytest.mark.parametrize("setting", GPU_SETTINGS, ids=lambda setting: setting.row)
def test_step(benchmark, suite, tmp_path, setting):
    gc.collect()
    torch.cuda.empty_cache()
    if suite.quick:
        setting = setting.shrunk()
    data = image_data(setting.net)
    net, plain = (model.cuda() for model in build_nets(setting))
    check_networks(net.eval(), plain, data, setting.dtype)
    ours = TrainerStep(setting, net, tmp_path)
    ours()
    replay, saved, num_bytes = build_floor(ours, setting)

    sizes = (data, setting.num_images, setting.num_negatives)
    others = {"deduplicated": DeduplicatedStep(copy_of(plain, setting.dtype), *sizes)}
    if not setting.no_naive:
        others["naive"] = Algorithm1Step(copy_of(plain, torch.float32), *sizes)
        others["naive_same_dtype"] = Algorithm1Step(copy_of(plain, setting.dtype), *sizes)
    info = benchmark.extra_info
    if setting.no_compile:
        info["no_compile"] = setting.no_compile
    else:
        compiled = DeduplicatedStep(copy_of(plain, setting.dtype), *sizes, backend=suite.backend)
        others["compiled"], info["compile_seconds"] = compiled, compiled.compile_seconds
    others["floor"] = replay
    del plain

    bandwidth = copy_bandwidth()
    machine = {"processor": torch.cuda.get_device_name(), "torch": torch.__version__}
    machine["copy_GBs"] = bandwidth / 1e9
    info.update(row=setting.row, dtype=str(setting.dtype), num_negatives=setting.num_negatives)
    info.update(machine=machine, evaluations=setting.num_evaluations, num_images=setting.num_images)
    info.update(floor_GFLOP=replay.flops / 1e9, floor_calls=len(replay.replays))
    info.update(convolution_flops_saved_by_sharing=saved, fused_GB=num_bytes / 1e9)
    torch.cuda.reset_peak_memory_stats()
    waited_for(ours)()
    info["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    others = {name: waited_for(step) for name, step in others.items()}
    times = interleave(benchmark, waited_for(ours), others, rounds=suite.rounds(setting.rounds))
    if times is None:
        return
    record_times(benchmark, times)
    own = times["ours"]
    ratios = {"fusion": (times["deduplicated"], own), "over_floor": (own, times["floor"])}
    if "naive" in times:
        naive, same_dtype = times["naive"], times["naive_same_dtype"]
        ratios |= {"over_naive": (naive, own), "over_naive_same_dtype": (same_dtype, own)}
        ratios |= {"precision": (naive, same_dtype), "deduplication": (same_dtype, times["deduplicated"])}
    if "compiled" in times:
        ratios["over_compile"] = (times["compiled"], own)
    ratios = {key: a.ratios(b) for key, (a, b) in ratios.items()}
    ratios["floor_and_bytes"] = [1 + num_bytes / bandwidth / seconds for seconds in times["floor"].seconds]
    suite.record(benchmark, ratios)
