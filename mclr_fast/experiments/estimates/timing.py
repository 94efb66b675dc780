"""A run's hours on this machine: a few steps and samples of its network, timed in a dry run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mclr_fast.config import RunConfig
from mclr_fast.methods.registry import Needs
from mclr_fast.models import Model
from mclr_fast.models.family import Frozen
from mclr_fast.runtime.device.graphs import Procedures, capturer
from mclr_fast.training.averages import PlainEMA
from mclr_fast.training.made_up_rows import even_ratio, made_up_rows
from mclr_fast.training.memory import StepMemory
from mclr_fast.training.optimizer import OPTIMIZERS
from mclr_fast.training.placement import Replicated

from ..checks import net_overrides
from ..identity.versions import describe_device
from .cost import Cost

BUDGET = 4.0  # seconds for each of the two, about
SLOWEST = {"cpu": 5e10, "cuda": 2e13}  # operations a second that a machine makes at least, nearly always
REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of one process: of an image in training, all of its columns; of an unguided sample, or None."""

    image: float
    sample: float | None


class OneRank:
    """A rank by itself, whatever others there are: what placing a network asks of it."""

    size = 1

    def __init__(self, device: torch.device):
        self.device = device

    def sum(self, values: Tensor) -> Tensor:
        """Nothing to add."""
        return values


def time_run(
    config: RunConfig, step: StepMemory, device: torch.device, *, samples: bool = True
) -> Timing | None:
    """Time training on made-up rows, and sampling, on a new network; None where that takes too long here.

    Too long is told by the operations, before anything is made: a network that a GPU trains is not built on a
    CPU. samples: whether what sampling needs beside the network is there.
    """
    image, call = step.flops
    slowest = SLOWEST[device.type]
    if REPEATS * image > BUDGET * slowest:
        return None
    net, model = _network(config, step.model, device), step.model
    height, _ = step.part(1, config.train.micro_batch)
    seconds = _seconds_a_piece(_training(config, step, net, device), height, device)
    too_long = REPEATS * call * step.family.calls_a_sample(config.eval) > BUDGET * slowest
    if too_long or not samples:
        return Timing(seconds, None)
    net = net.requires_grad_(False).eval()
    sampler = model.sampler(net, config.eval, guidance=None)

    def sample(count: int) -> None:
        sampler(sampler.start(range(count)), torch.zeros(count, dtype=torch.int64, device=device))

    with torch.no_grad(), sampler.held():
        return Timing(seconds, _seconds_a_piece(sample, config.eval.sample_batch, device))


def timing_lines(
    config: RunConfig,
    step: StepMemory,
    cost: Cost,
    timing: Timing | None,
    device: torch.device,
    num_ranks: int,
) -> Iterator[str]:
    """The hours that `cost` becomes at the speeds measured, shared by the ranks."""
    image, call = step.flops
    where = f"{num_ranks} x {describe_device(device)}" if num_ranks > 1 else describe_device(device)
    if timing is None:
        yield f"hours here      not timed: {image / 1e12:.3g} TFLOP an image are too many for {where}"
        return
    planned = config.gpu_tflops * 1e12
    training = cost.training * planned / (image / timing.image) / num_ranks
    speeds = [f"{num_ranks / timing.image:,.3g} images/s"]
    if timing.sample is None:
        yield f"hours here      training {training:.3g}, rows not timed, on {where}: {speeds[0]}"
        return
    operations = step.family.calls_a_sample(config.eval) * call
    rows, final = (
        hours * planned / (operations / timing.sample) / num_ranks for hours in (cost.rows, cost.final)
    )
    speeds.append(f"{num_ranks / timing.sample:,.3g} samples/s")
    yield (
        f"hours here      {training + rows + final:.3g} = training {training:.3g}, rows {rows:.3g}, "
        f"final rows {final:.3g}, on {where}: {', '.join(speeds)}, without reading data and scoring"
    )


def _network(config: RunConfig, model: Model, device: torch.device) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return model.build(**net_overrides(config.train, device)).train()


def _training(
    config: RunConfig, step: StepMemory, net: nn.Module, device: torch.device
) -> Callable[[int], None]:
    """What trains on so many made-up images in micro-batches as the run's."""
    family, method = step.family, step.method
    trained = set(map(id, family.trainable(net, own_loss=method.entry.trains_own_loss)))
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    params = {name: p for name, p in net.named_parameters() if p.requires_grad}
    reference: Frozen | None = None
    if method.needs_reference:
        reference = family.frozen(_network(config, step.model, device))
    ratio = even_ratio if method.needs_ratio else None
    score = partial(method.loss(family, Needs(reference, ratio=ratio)).backward, net)
    graphs = Procedures(capturer(device) if config.eval.cuda_graphs == "on" else None)
    placement = Replicated(net, family, OneRank(device), graphs)
    ema = PlainEMA(params, config.train.ema_beta)
    make_optimizer = OPTIMIZERS[config.train.optimizer]
    optimizer = make_optimizer(params, ema, family.normalized(net), config.train.betas)

    def train(count: int) -> None:
        sizes = (method.columns, count, step.num_columns, device)
        rows = made_up_rows(step.model, config.objective, *sizes, own_reference=step.keeps_own_energies)
        parts = rows.micro_batches(config.train.micro_batch, separable=method.separable)
        for _ in placement.backward(score, parts):
            pass
        optimizer.step(0.0, config.train.batch_size, config.train.batch_size)

    return train


def _seconds_a_piece(work: Callable[[int], Any], most: int, device: torch.device) -> float:
    """Of one of as many at once as are asked for, or as the budget allows. work: does so many."""

    def timed(count: int) -> float:
        started = time.perf_counter()
        work(count)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    alone = [timed(1) for _ in range(REPEATS)][-1]
    count = max(1, min(most, int(BUDGET / (REPEATS * alone)))) if alone > 0 else most
    if count == 1:
        return alone
    return min([timed(count) for _ in range(REPEATS)][1:]) / count
