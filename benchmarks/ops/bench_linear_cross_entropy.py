"""linear_cross_entropy at VAR-d16's head, forward and backward: the matrix products alone are the floor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from head_memory_probe import Head
from interleave import interleave, record_times
from pointwise import dtypes
from torch.nn import functional

from mclr_fast import ops

ROUNDS = 9
BETA = 0.02
PROBE = Path(__file__).parents[1] / "head_memory_probe.py"
WAYS = {"head-one-pass": 3, "head-two-passes": 4}  # products


def head_of(suite, dtype):
    return Head(dtype, small=suite.quick)


class Products:
    """As many products of the head's three shapes as an op makes of them, and nothing else."""

    def __init__(self, head, count):
        self.hidden = head.hidden.detach().flatten(0, 1)
        self.weight, self.count = head.weight.detach().to(head.hidden.dtype), count
        self.logits = torch.randn(len(self.hidden), len(self.weight)).to(self.hidden.dtype)

    def __call__(self):
        for _ in range(self.count - 2):
            self.hidden @ self.weight.t()
        return self.logits @ self.weight, self.logits.t() @ self.hidden


def check(head, dtype):
    """Loss and gradients of both ways are the eager ones, to a few roundings."""
    with ops.using("reference"):
        expected = head.step(False)
    for known in (False, True):
        (loss, *grads), (true_loss, *true_grads) = head.step(known), expected
        energy = head.targets.shape[1] * 10  # the loss is a difference of such
        assert (loss - true_loss).abs() <= torch.finfo(dtype).eps * energy
        for found, truth in zip(grads, true_grads, strict=True):
            limit = 32 * torch.finfo(dtype).eps * truth.abs().max()
            assert (found - truth).abs().max() <= limit


@dtypes
@pytest.mark.parametrize("way", WAYS)
def test_head(benchmark, suite, dtype, way):
    head, known = head_of(suite, dtype), way == "head-one-pass"
    check(head, dtype)
    torch._dynamo.reset()
    compiled = torch.compile(head.reference_loss, dynamic=False, backend=suite.backend)
    contenders = {
        "floor": Products(head, WAYS[way]),
        "torch": lambda: head.back(head.reference_loss()),
        "compiled": lambda: head.back(compiled()),
    }
    info = benchmark.extra_info
    info.update(row=way, dtype=str(dtype), case=head.name, machine=suite.machine)
    times = interleave(benchmark, lambda: head.step(known), contenders, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    ratios = {"over_floor": times["ours"].ratios(times["floor"])}
    for key, name in (("over_torch", "torch"), ("over_compile", "compiled")):
        ratios[key] = times[name].ratios(times["ours"])
    suite.record(benchmark, ratios)


@dtypes
@pytest.mark.parametrize("way", WAYS)
def test_memory(benchmark, suite, dtype, way):
    """At the fullest moment, beside operands, loss and gradients; each in a process of its own."""

    def probe(implementation):
        command = [sys.executable, str(PROBE), implementation, way, str(dtype).removeprefix("torch.")]
        command += ["--quick"] * suite.quick
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stderr[-2000:]
        return json.loads(run.stdout.splitlines()[-1])

    info = benchmark.extra_info
    info.update(row=way.replace("head", "head-memory"), dtype=str(dtype), machine=suite.machine)
    ours = benchmark.pedantic(probe, args=("auto",), rounds=1)
    eager = probe("reference")
    info["case"] = f"{ours / 1e6:.0f} MB, eager {eager / 1e6:.0f} MB"
    suite.record(benchmark, {"memory_over_torch": [ours / max(eager, 1)]})


class CCDPO:
    """The loss of pairs under a frozen head that is evaluated too; rows lie as each contender takes them."""

    def __init__(self, head):
        self.num_pairs = len(head.targets) // 2
        dtype = head.hidden.dtype  # of the parameters too, which Liger-Kernel's product needs
        weight, bias = (x.detach().to(dtype).requires_grad_() for x in (head.weight, head.bias))
        chosen_first = head.hidden.detach().requires_grad_()
        paired = self.pairs(head.hidden.detach()).requires_grad_()
        self.paired, self.chosen_first = (paired, weight, bias), (chosen_first, weight, bias)
        self.targets = head.targets
        self.frozen = (head.hidden + 0.01 * torch.randn(head.hidden.shape)).detach().to(weight.dtype)
        self.frozen_head = weight.detach(), bias.detach()
        self.paired_targets, self.paired_frozen = self.pairs(self.targets), self.pairs(self.frozen)

    @staticmethod
    def pairs(x):
        """Chosen rows and then rejected ones, as [pairs, 2, ...]."""
        return torch.stack(x.chunk(2), dim=1)

    def loss(self, energies, frozen):
        """Of energies [n,2]: eq. 156 with K = 1, these rows' part of the mean over all."""
        margin = (energies - frozen) @ torch.tensor([-1.0, 1.0])
        return -functional.logsigmoid(BETA * margin).sum() / self.num_pairs

    def ours(self):
        """A row is a pair, so that its coefficients are known when both have been scored."""
        frozen_weight, frozen_bias = self.frozen_head
        with torch.no_grad():
            frozen = ops.linear_cross_entropy(
                self.paired_frozen, frozen_weight, self.paired_targets, bias=frozen_bias
            ).sum(2)

        def coefficients(nll, rows):
            with torch.enable_grad():
                energies = nll.sum(2).requires_grad_()
                return torch.autograd.grad(self.loss(energies, frozen[rows]), energies)[0]

        hidden, weight, bias = self.paired
        nll = ops.linear_cross_entropy(
            hidden, weight, self.paired_targets, bias=bias, coefficients=coefficients
        )
        loss = self.loss(nll.sum(2), frozen)
        return [loss.detach(), *torch.autograd.grad(loss, self.paired)]

    def ligers(self, compiled):
        """Liger-Kernel's, whose chunk is a pair."""
        fused = pytest.importorskip("liger_kernel.chunked_loss").LigerFusedLinearDPOLoss
        module = fused(beta=BETA, compiled=compiled)
        hidden, weight, bias = self.chosen_first

        def run():
            loss, _ = module(weight, hidden, self.targets, bias, self.frozen, *self.frozen_head)
            return [loss.detach(), *torch.autograd.grad(loss, self.chosen_first)]

        return run


@dtypes
def test_cc_dpo(benchmark, suite, dtype):
    head = head_of(suite, dtype)
    case = CCDPO(head)
    contenders = {"liger": case.ligers(not suite.quick), "liger_eager": case.ligers(False)}
    contenders["floor"] = Products(head, 4)
    expected = contenders["liger_eager"]()
    expected[1] = case.pairs(expected[1])
    for found, truth in zip(case.ours(), expected, strict=True):
        # An energy of 6,000 is known to 5e-4, and so the pair's coefficient to 1e-5 of it.
        limit = max(32 * torch.finfo(dtype).eps, 1e-4) * truth.abs().max()
        assert (found - truth).abs().max() <= limit
    info = benchmark.extra_info
    info.update(row="head-cc-dpo", dtype=str(dtype), case=head.name, machine=suite.machine)
    times = interleave(benchmark, case.ours, contenders, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    ratios = {"over_liger": times["liger"].ratios(times["ours"])}
    ratios["over_floor"] = times["ours"].ratios(times["floor"])
    suite.record(benchmark, ratios)
