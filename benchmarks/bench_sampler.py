"""The embedded runs' sampler against plain eager torch, torch.compile of the whole network, and the floor.

Run: pytest benchmarks/bench_sampler.py --benchmark-only
"""

import time
from dataclasses import dataclass

import floor
import pytest
import torch
from baselines.algorithm1 import copy_of
from baselines.plain_net import PlainNet
from baselines.plain_sampler import heun, noise_levels
from bench_step import NETWORK_ERROR, relative_error
from interleave import interleave, record_times

from mclr_fast import ops
from mclr_fast.config import SamplerConfig
from mclr_fast.models import load
from mclr_fast.models.edm2.family import EDM2
from mclr_fast.recipes.mnist16 import NET, SAMPLER

GUIDANCE = 1.7
NO_WORSE = 1.1  # times eager's distance from the float32 images, at which ours may be
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """One row: images a batch, what the network computes in; sampler calls a round, and rounds."""

    num_images: int
    precision: str
    calls: int = 1
    rounds: int = 7

    @property
    def row(self) -> str:
        return f"sampler-b{self.num_images}-{self.precision}"


SETTINGS = [
    Setting(num_images, precision, calls)
    for precision in DTYPES
    for num_images, calls in ((1, 10), (8, 4), (64, 1), (250, 1))
]


class Contenders:
    """The samplers of one setting, from the same noise and labels."""

    def __init__(self, setting: Setting, num_images: int, num_steps: int):
        self.dtype = DTYPES[setting.precision]
        self.options = SamplerConfig(**(SAMPLER | {"num_steps": num_steps}))
        self.net = load("mnist16-base", dtype=self.dtype)
        plain = PlainNet(**NET).eval()
        plain.load_state_dict(self.net.state_dict(), strict=True)
        self.plain, self.exact = copy_of(plain, self.dtype), copy_of(plain, torch.float32)
        self.levels = noise_levels(num_steps, self.options.sigma_min, self.options.sigma_max)
        self.labels = torch.arange(num_images) % NET["label_dim"]
        self.one_hot = torch.nn.functional.one_hot(self.labels, NET["label_dim"]).float()
        self.noise = torch.randn(num_images, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def ours(self, guidance=None):
        """The family's sampler, its weights held, as `generate` calls it."""
        family = EDM2()
        sampler = family.sampler(self.net, family.facts(NET), self.options, guidance=guidance)
        return lambda: sampler(self.noise, self.labels)

    def eager(self):
        return heun(self.plain, self.noise, self.one_hot, self.levels)

    def errors(self, *images):
        """How far images are from plain float32's."""
        expected = heun(self.exact, self.noise, self.one_hot, self.levels)
        return [relative_error(each, expected) for each in images]

    def compiled(self, backend):
        """The plain loop on the whole plain network compiled, and the seconds that its first call took."""
        torch._dynamo.reset()
        net = torch.compile(self.plain, fullgraph=True, dynamic=False, backend=backend)
        start = time.perf_counter()
        heun(net, self.noise, self.one_hot, self.levels)
        return lambda: heun(net, self.noise, self.one_hot, self.levels), time.perf_counter() - start

    def floor(self):
        """The convolutions and products of all calls, without anything else: seconds."""
        net_input = ops.with_ones(self.noise, self.dtype)
        with torch.no_grad(), floor.record() as calls:
            self.net(net_input, torch.ones(()), self.labels, output="network")
        replay, times = floor.Floor(calls), 2 * self.options.num_steps - 1
        return lambda: sum(replay() for _ in range(times))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.row)
def test_sampler(benchmark, suite, setting):
    num_images, num_steps = setting.num_images, SAMPLER["num_steps"]
    if suite.quick:
        num_images, num_steps = min(num_images, 2), 2
    contenders = Contenders(setting, num_images, num_steps)
    compiled, compile_seconds = contenders.compiled(suite.backend)
    with EDM2().step_weights(contenders.net).held():
        ours, guided = contenders.ours(), contenders.ours(GUIDANCE)
        others = {
            "eager": contenders.eager,
            "compiled": compiled,
            "guided": guided,
            "floor": contenders.floor(),
        }
        limit = NETWORK_ERROR[contenders.dtype]
        for other in (contenders.eager, compiled):
            assert relative_error(ours(), other()) < limit
        assert relative_error(guided(), ours()) > limit  # guidance does something
        info = benchmark.extra_info
        if contenders.dtype != torch.float32:
            info["error"], info["eager_error"] = contenders.errors(ours(), contenders.eager())
            assert info["error"] < NO_WORSE * info["eager_error"]
        info.update(row=setting.row, dtype=str(contenders.dtype), machine=suite.machine)
        info.update(num_steps=num_steps, guidance=GUIDANCE, compile_seconds=compile_seconds)
        calls = 1 if suite.quick else setting.calls
        times = interleave(benchmark, ours, others, rounds=suite.rounds(setting.rounds), calls=calls)
    if times is None:
        return
    record_times(benchmark, times)
    own = times["ours"]
    ratios = {
        "over_eager": times["eager"].ratios(own),
        "over_compile": times["compiled"].ratios(own),
        "over_floor": own.ratios(times["floor"]),
        "guided_over_unguided": times["guided"].ratios(own),
    }
    suite.record(benchmark, ratios)
