"""adam_norm_ema_: Adam, two averages and forced weight normalisation, each state read and written once."""

import importlib
import math

import machine
import torch
from baselines.training import force_weight_norm_
from interleave import interleave, record_times
from pointwise import compare
from shapes import BLOCK_WEIGHTS
from torch._inductor.exc import InductorError

from mclr_fast import ops

ROUNDS = 9
BETAS, LR, EPS, DECAYS = (0.9, 0.99), 1e-4, 1e-8, (0.999, 0.9999)
reference = importlib.import_module("mclr_fast.ops.reference.adam_norm_ema_").adam_norm_ema_


class State:
    """`count` times two blocks' weights with gradients, moments and two averages."""

    def __init__(self, count):
        torch.manual_seed(0)
        shapes = [shape for _ in range(count) for shape in BLOCK_WEIGHTS]
        self.params = [torch.randn(shape) for shape in shapes]
        self.grads = [torch.randn(shape) for shape in shapes]
        self.exp_avg = [torch.zeros(shape) for shape in shapes]
        self.exp_avg_sq = [torch.zeros(shape) for shape in shapes]
        self.averages = [[p.clone() for p in self.params] for _ in DECAYS]
        self.num_steps = 0

    def step_of(self, function):
        """One step by an op of adam_norm_ema_'s signature."""

        def run():
            self.num_steps += 1
            function(
                self.params, self.grads, self.exp_avg, self.exp_avg_sq,
                list(zip(self.averages, DECAYS, strict=True)), [True] * len(self.params),
                step=self.num_steps, lr=LR, betas=BETAS, eps=EPS,
            )  # fmt: skip

        return run

    def torch_step(self):
        """One step by torch's fused Adam, foreach averages, and the normalisation weight by weight."""
        params = [torch.nn.Parameter(p) for p in self.params]
        for parameter, grad in zip(params, self.grads, strict=True):
            parameter.grad = grad
        adam = torch.optim.Adam(params, lr=LR, betas=BETAS, eps=EPS, fused=True)

        @torch.no_grad()
        def run():
            adam.step()
            for average, decay in zip(self.averages, DECAYS, strict=True):
                torch._foreach_lerp_(average, params, 1 - decay)
            force_weight_norm_(params)

        return run


def check():
    """Three steps of each leave the same parameters and averages."""
    states = [State(1) for _ in range(3)]
    steps = [
        states[0].step_of(ops.adam_norm_ema_),
        states[1].step_of(reference),
        states[2].torch_step(),
    ]
    for step in steps:
        for _ in range(3):
            step()
    for other in states[1:]:
        torch.testing.assert_close(states[0].params, other.params, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(states[0].averages, other.averages, rtol=1e-5, atol=1e-6)


def test_past_cache(benchmark, suite):
    check()
    elements = sum(map(math.prod, BLOCK_WEIGHTS))
    count = math.ceil(machine.past_cache_bytes(suite.quick) / (6 * 4 * elements))
    least = 11 * 4 * elements * count  # six arrays read, all but the gradients written
    copy = machine.Copy(least)
    ours, theirs = State(count), State(count)
    info = benchmark.extra_info
    info.update(row="optimizer", size="past cache", dtype="torch.float32", parameters=elements * count)
    info["machine"] = suite.machine
    others = {"torch": theirs.torch_step(), "copy": copy}
    times = interleave(benchmark, ours.step_of(ops.adam_norm_ema_), others, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    shares = [ratio * least / copy.num_bytes for ratio in times["copy"].ratios(times["ours"])]
    suite.record(benchmark, {"over_torch": times["torch"].ratios(times["ours"]), "share_of_copy": shares})


def test_network(benchmark, suite):
    check()
    torch._dynamo.reset()
    # The step's number would be a constant of the compiled function, and each step a new one.
    compiled = torch.compile(fixed_step(reference), dynamic=False, backend=suite.backend)
    info = benchmark.extra_info
    info.update(row="pointwise-adam_norm_ema_", size="network", case="two blocks", dtype="torch.float32")
    info["machine"] = suite.machine
    functions = {"ours": fixed_step(ops.adam_norm_ema_), "torch": fixed_step(reference)}
    try:
        State(1).step_of(compiled)()
        functions["compiled"] = compiled
    except InductorError as error:  # torch 2.14 on these lists of tensors
        info["no_compile"] = f"Inductor fails on the reference: {' '.join(str(error).split())[:80]}"
    compare(benchmark, suite, {name: State(1).step_of(function) for name, function in functions.items()})


def fixed_step(function):
    def run(*args, step, **kwargs):
        function(*args, step=1, **kwargs)

    return run
