"""The sampler on a GPU, EDM2-S at 64x64 with 32 steps: its graph against its own kernels, and NVIDIA's loop.

Run: pytest benchmarks/bench_sampler_gpu.py --benchmark-only
"""

import gc
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass

import floor
import pytest
import torch
from baselines.algorithm1 import copy_of
from baselines.plain_sampler import heun, noise_levels
from bench_step import NETWORK_ERROR, relative_error
from gpu import Device, busy_seconds
from interleave import interleave, record_times
from steps import PRESET_SHAPE, Setting, build_nets

from mclr_fast import ops
from mclr_fast.config import SamplerConfig
from mclr_fast.models.edm2 import PRESETS
from mclr_fast.models.edm2.family import EDM2

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GUIDANCE = 1.7
MOST_COMPILE_SECONDS = 240
NET = PRESET_SHAPE | PRESETS["edm2-img64-s"].net


@dataclass(frozen=True)
class Row:
    """Images a batch, whether torch.compile is tried, and rounds."""

    num_images: int
    compiled: bool = False
    rounds: int = 5


ROWS = [Row(1), Row(8, compiled=True), Row(64, rounds=3)]


@contextmanager
def at_most(seconds):
    """TimeoutError in the block once it has taken so long."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Contenders:
    """The samplers of one row, from the same noise and labels; the plain network is float16, as published."""

    def __init__(self, row, quick):
        setting = Setting("sampler", NET, row.num_images, 0, torch.bfloat16, device="cuda")
        setting = setting.shrunk() if quick else setting
        self.options = SamplerConfig(num_steps=2 if quick else 32, sigma_min=0.002, sigma_max=80.0)
        self.net, plain = (net.cuda().eval() for net in build_nets(setting))
        self.plain = copy_of(plain, torch.float16)
        self.facts = EDM2().facts(setting.net)
        self.levels = noise_levels(self.options.num_steps, 0.002, 80.0)
        self.labels = torch.arange(row.num_images, device="cuda") % self.facts.num_classes
        one_hot = torch.nn.functional.one_hot(self.labels, self.facts.num_classes)
        self.one_hot, self.noise = one_hot.float(), torch.randn(row.num_images, *self.facts.shape).cuda()

    def sampler(self, guidance=None):
        return EDM2().sampler(self.net, self.facts, self.options, guidance=guidance)

    def published(self, net=None):
        return heun(self.plain if net is None else net, self.noise, self.one_hot, self.levels)

    def flops_and_bytes(self):
        """Of one call: convolutions and products; what the fused ops move, and the weights once."""
        net_input = ops.with_ones(self.noise, self.net.dtype)
        with torch.no_grad(), floor.BytesMoved() as moved, floor.record() as calls:
            self.net(net_input, torch.ones((), device="cuda"), self.labels, output="network")
        replay = floor.Floor(calls)
        return replay, moved.total + sum(p.numel() for p in self.net.parameters()) * 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"sampler-gpu-b{row.num_images}")
def test_sampler(benchmark, suite, row):
    gc.collect()
    torch.cuda.empty_cache()
    contenders, info, device = Contenders(row, suite.quick), benchmark.extra_info, Device("cuda")
    ours, guided = contenders.sampler(), contenders.sampler(GUIDANCE)
    start = contenders.noise, contenders.labels
    with ours.held(), guided.held():
        for _ in range(2):  # warm-up, then capture
            found, _ = ours(*start), guided(*start)
        assert relative_error(found, contenders.published()) < NETWORK_ERROR[torch.bfloat16]
        replay, num_bytes = contenders.flops_and_bytes()
        bandwidth = device.copy_bandwidth()
        info.update(row=f"sampler-gpu-b{row.num_images}", dtype="torch.bfloat16", guidance=GUIDANCE)
        info.update(machine=device.facts())
        info.update(call_GFLOP=replay.flops / 1e9, call_GB=num_bytes / 1e9)
        info.update(bound_ms=(replay() + num_bytes / bandwidth) * ours.nfe * 1e3)
        busy = busy_seconds(lambda: ours(*start), device)
        others = {"guided": lambda: guided(*start), "eager": contenders.published}
        if row.compiled:
            mode = None if suite.quick else "max-autotune"
            net = torch.compile(contenders.plain, dynamic=False, mode=mode, backend=suite.backend)
            began = time.perf_counter()
            try:
                with at_most(MOST_COMPILE_SECONDS):
                    contenders.published(net)
                others["compiled"] = lambda: contenders.published(net)
                info["compile_seconds"] = time.perf_counter() - began
            except TimeoutError:
                info["no_compile"] = f"did not finish in {MOST_COMPILE_SECONDS} s"
        times = interleave(
            benchmark, lambda: ours(*start), others, rounds=suite.rounds(row.rounds), finish=device.finish
        )
    if times is None:
        return
    record_times(benchmark, times)
    own = times["ours"]
    ratios = {
        "over_eager": times["eager"].ratios(own),
        "guided_over_unguided": times["guided"].ratios(own),
        "over_kernels": [seconds / busy for seconds in own.seconds],
    }
    if "compiled" in times:
        ratios["over_compile"] = times["compiled"].ratios(own)
    suite.record(benchmark, ratios)
