"""The loop: one arm of a run, from its start or its saved state to any number of images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from mclr_fast import ops
from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.methods.minibatch import MinibatchSource
from mclr_fast.methods.registry import Needs, make_method
from mclr_fast.models import Model
from mclr_fast.runtime.device.graphs import Procedures, capturer
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.logs import RunLog, say
from mclr_fast.runtime.process.faults import Fault
from mclr_fast.runtime.process.ranks import Ranks, local
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.stages import on_terminal, progress_bar

from .averages import ParameterEMA, PlainEMA, PowerFunctionEMA
from .loss_scale import LossScale
from .optimizer import OPTIMIZERS
from .placement import place
from .schedule import EDM2Schedule, HoldSchedule
from .states import TrainingStates
from .step import Step, StepResult
from .step_lines import StepLines
from .stopping import EnergyGuard


class Trainer:
    """Trains one network with one objective.

    Args:
        arm: names this training in the log ("mclr", or "denoising" for the control).
        config: the run; model: the network's description; net: the network, unwrapped, on the CPU.
        dataset: what it trains on.
        states: where its states are saved, and resumed from if there is one.
        run: what the run is, in a few characters; states of another are refused.
        stop: looked at after every step.

    What an objective needs beside the network it gets by `use`, before the first step.

    Attributes: images_seen, the clock; skipped: bad minibatches left out by request; stopped: why the
    guard stopped it, or None.
    """

    def __init__(
        self,
        arm: str,
        config: RunConfig,
        model: Model,
        net: nn.Module,
        dataset: Dataset,
        ranks: Ranks,
        log: RunLog,
        states: Path,
        run: str,
        stop: StopRequest,
    ):
        self.arm = arm
        self.config = config.train
        self.seed = config.seed
        self.family = model.family
        self.ranks = ranks
        self.log = log
        self.images_seen = 0
        self.skipped = 0
        self.seconds = 0.0

        self.num_negatives = config.objective.num_negatives
        self.method = make_method(config.objective)
        self.guard = EnergyGuard(self.config.stop_factor)
        self.net = self._prepared(net)
        self.placement = place(self.net, self.family, ranks, self.config.sharding, self._graphs(config))
        params = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        self.ema = self._averages(params)
        make_optimizer = OPTIMIZERS[self.config.optimizer]
        normalized = self.family.normalized(self.net)
        self.optimizer = make_optimizer(params, self.ema, normalized, self.config.betas)
        self.loss_scale = LossScale(self.family.dtype(self.net))
        self.schedule = EDM2Schedule(self.config.lr, self.config.ref_batches, self.config.warmup_images / 1e6)
        if self.config.lr_schedule == "hold":
            self.schedule = HoldSchedule(self.config.lr, self.config.warmup_images)
        self.source = self._source(config, model, dataset)
        self.step = Step(
            self.net,
            self.method,
            self.source,
            self.placement,
            self.optimizer,
            self.config.micro_batch,
            ranks,
            stop,
        )
        if not self.method.entry.needs:
            self.use(Needs())
        self.fault = Fault(ranks.rank, self.config.batch_size)
        self.states = TrainingStates(states, ranks, run, self.config.keep_checkpoints, self.fault)
        self._load()
        self.lines = StepLines(arm, log, self.source, ranks.device, self.images_seen)

    def use(self, needs: Needs) -> None:
        """Train with this reference, these samples or ratios from here on."""
        self.step.loss = self.method.loss(self.family, needs)
        self.placement.forget()
        self.source.samples, self.source.own_reference = needs.samples, needs.own_energies

    @property
    def stopped(self) -> str | None:
        """Why the guard stopped this training, in words; None while it may go on."""
        return self.guard.why

    def train_until(self, images: int) -> None:
        """Step until at least `images` have been seen, or the guard stops; log, and save now and then.

        Errors    RunError when loss or gradients are not finite (before the update), unless
                  --skip-bad-batches allows; Interrupted after a signal (after saving).
        """
        config = self.config
        # Elsewhere the run's lines at its milestones say how far it is.
        watched = self.ranks.is_main and on_terminal()
        bar = progress_bar(self.arm, config.duration, self.images_seen, watched)
        with bar:
            while self.images_seen < images and not self.stopped:
                started = time.perf_counter()
                lr = self.schedule(self.images_seen, config.batch_size)
                # The log begins at the first step.
                logs = self.images_seen == 0 or self._passes(config.log_every or 1)
                saves = config.checkpoint_every and self._passes(config.checkpoint_every)
                wait = self.step.begin(self.images_seen, self.loss_scale.value, with_norm=logs)
                self.images_seen += config.batch_size
                update = self.optimizer.prepare(lr, self.images_seen, config.batch_size)
                result = wait()
                bad = self._update(result, update)
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                self.fault.at("update", self.images_seen)

                bar.set_postfix_str(f"loss {result.loss:.4g}", refresh=False)
                bar.update(config.batch_size)
                if logs and not bad:
                    self._log(result, lr, config.batch_size / elapsed)
                if result.stop:
                    self.save()
                    self.states.wait()
                    raise Interrupted
                if saves:
                    self.save()
        self.placement.make_room()

    def average_state(self, label: str | None = None) -> dict[str, Tensor]:
        """state_dict of the network with an average (default: the first) in place of the trained parameters.

        All ranks must call it: what is sharded is gathered.
        """
        averages = self.ema.weights()
        average = averages[label or next(iter(averages))]
        return self.family.published(self.placement.full(self.tensors()["net"] | average))

    def save(self) -> None:
        """Begin to save the whole state; it goes on beside the training (`states.wait` waits for it).

        Errors    RunError when a parameter is not finite, or the save before this one failed.
        """
        if name := self._first_not_finite(self.net.named_parameters()):
            raise RunError(
                f"{name} is not finite {self._where()}: not saved. {self._last_good()} Lower --lr."
            )
        meta = {"images_seen": self.images_seen, "seconds": self.seconds, "skipped": self.skipped}
        meta |= {"guard": self.guard.state(), "loss_scale": self.loss_scale.state()}
        self.states.save(self.images_seen, self.tensors(), meta)

    def _prepared(self, net: nn.Module) -> nn.Module:
        """On its device, the same on every rank, with gradients where the objective reaches, normalised."""
        net = net.to(self.ranks.device).train()
        own_loss = self.method.entry.trains_own_loss
        trained = set(map(id, self.family.trainable(net, own_loss=own_loss)))
        for parameter in net.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        self.ranks.share(net.parameters())
        ops.force_weight_norm_(self.family.normalized(net))
        return net

    def _graphs(self, config: RunConfig) -> Procedures:
        device = capturer(self.ranks.device) if config.eval.cuda_graphs == "on" else None
        return Procedures(device, say=partial(say, self.ranks.is_main))

    def _averages(self, params: dict[str, nn.Parameter]) -> ParameterEMA:
        if self.config.ema == "power":
            return PowerFunctionEMA(params, self.config.ema_stds)
        return PlainEMA(params, self.config.ema_beta)

    def _source(self, config: RunConfig, model: Model, dataset: Dataset) -> MinibatchSource:
        return MinibatchSource(
            dataset,
            model.codec(dataset),
            model.law(config.objective),
            config.objective,
            self.method.columns,
            self.method.label_dropout,
            self.config.batch_size,
            self.seed,
            self.ranks,
            self.config.flip,
        )

    def _update(self, result: StepResult, update: Callable[[], None]) -> bool:
        """Apply the gradients of a step, or leave it out; whether it was bad: nothing would mend it.

        Errors    RunError for a bad step that may not be left out.
        """
        overflow = not result.finite and math.isfinite(result.loss) and not self.loss_scale.at_lowest
        bad = not (result.finite or overflow)  # a lower loss scale would not mend it
        if result.finite:
            update()
        else:
            if bad:
                self._allow_bad_batch(result.loss)
            self.optimizer.skip(self.images_seen, self.config.batch_size)
        if not bad:
            self.loss_scale.observe(result.finite)
            self.guard.observe(**self._means(result))
        return bad

    def _allow_bad_batch(self, loss: float) -> None:
        """Count a minibatch whose loss or gradients are not finite. RunError if it may not be left out."""
        allowed = self.config.skip_bad_batches
        named = list(self.net.named_parameters())
        parameter = self._first_not_finite(named)
        gradient = self._first_not_finite((f"the gradient of {name}", p.grad) for name, p in named)
        culprit = f" ({parameter or gradient} is not finite)" if parameter or gradient else ""
        scale = f", loss scale {self.loss_scale.value:g}" if self.loss_scale.moves else ""
        what = f"the loss is {loss:.4g} {self._where()}{scale}{culprit}"
        if parameter is not None or self.skipped >= allowed:
            self.states.settle()
            raise RunError(
                f"{what}: stopped before the update. {self._last_good()} Lower --lr, look at the data, or "
                f"raise --skip-bad-batches (now {allowed})."
            )
        self.skipped += 1
        say(self.ranks.is_main, f"warning: {what}: skipped, {self.skipped} of {allowed} allowed.")
        self.log.write({"arm": self.arm, "images_seen": self.images_seen, "skipped_batches": self.skipped})

    def _first_not_finite(self, named: Iterable[tuple[str, Tensor | None]]) -> str | None:
        """The first name, on all ranks, whose tensor is not finite on any."""
        found = (name for name, t in named if t is not None and not bool(local(t).isfinite().all()))
        return self.ranks.first(next(found, None))

    def _where(self) -> str:
        step = self.images_seen // self.config.batch_size
        return f"at step {step:,}, {self.images_seen:,} images, arm {self.arm}"

    def _last_good(self) -> str:
        newest = self.states.newest()
        return f"Last good checkpoint: {newest}." if newest else "No checkpoint was saved yet."

    def _passes(self, interval: int) -> bool:
        """Whether the step that begins now reaches or passes a multiple of `interval` images."""
        return (self.images_seen + self.config.batch_size) // interval > self.images_seen // interval

    def _log(self, result: StepResult, lr: float, images_per_second: float) -> None:
        numbers = {"lr": lr, "seconds": self.seconds, "images_per_second": images_per_second}
        self.lines.write(self.images_seen, result, self._means(result), **numbers, **self.loss_scale.line())

    def _means(self, result: StepResult) -> dict[str, float]:
        return self.method.columns.means(result.energies, self.num_negatives)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The state, as it lives: groups of tensors, DTensors where sharded; gains are [1] in all of them."""
        return {
            "net": {n: t.detach() for n, t in (*self.net.named_parameters(), *self.net.named_buffers())},
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def _load(self) -> None:
        """Go on from the newest sound state, if there is one; the log goes back to it."""
        live = self.tensors()
        try:
            meta = self.states.load(live)
        except ValueError as error:
            raise RunError(
                f"{self.states.newest()} is not a state of this run ({error}). Choose another --outdir."
            ) from error
        if meta is not None:
            self.optimizer.load_state_dict(live["optimizer"])  # what it does not keep in tensors
            self.guard.load(meta["guard"])
            self.loss_scale.load(meta["loss_scale"])
            self.images_seen, self.skipped = meta["images_seen"], meta["skipped"]
            self.seconds = meta["seconds"]
        if self.ranks.is_main:
            self.log.rewind(self.arm, self.images_seen)
