"""The loop: one arm of a run, from its start or its saved state to any number of images."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.experiments.claim import flat
from mclr_fast.methods.columns import num_columns
from mclr_fast.methods.minibatch import MinibatchSource, micro_batches
from mclr_fast.methods.registry import Aids, make_method
from mclr_fast.models.edm2 import DropoutKey, force_weight_norm_, normalized_weights, published
from mclr_fast.objectives import NoiseLevel
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.faults import Fault
from mclr_fast.runtime.logs import RunLog, progress_bar, say
from mclr_fast.runtime.ranks import Ranks, local
from mclr_fast.runtime.signals import StopRequest

from .averages import ParameterEMA, PlainEMA, PowerFunctionEMA
from .loss_scale import LossScale
from .optimizer import OPTIMIZERS
from .placement import place
from .schedule import EDM2Schedule, HoldSchedule
from .states import TrainingStates
from .stopping import EnergyGuard


class Trainer:
    """Trains one network with one objective.

    Args:
        arm: names this training in the log ("mclr", or "denoising" for the control).
        config: the run; net: the unwrapped network, on the CPU; dataset: what it trains on.
        state_folder: where states are saved, and resumed from if there is one.
        stop: looked at after every step.

    An objective that needs a reference, samples or ratios gets them by `use`, before the first step.

    Attributes: images_seen, the clock; skipped: bad minibatches left out by request; stopped: why the
    guard stopped it, or None.
    """

    def __init__(
        self,
        arm: str,
        config: RunConfig,
        net: nn.Module,
        dataset: Dataset,
        ranks: Ranks,
        log: RunLog,
        state_folder: Path,
        stop: StopRequest,
    ):
        self.arm = arm
        self.config = config.train
        self.seed = config.seed
        self.ranks = ranks
        self.log = log
        self.stop = stop
        self.images_seen = 0
        self.skipped = 0
        self.seconds = 0.0

        objective = config.objective
        self.method = make_method(objective)
        self.num_negatives = objective.num_negatives
        self.num_columns = num_columns(self.method.tuples, objective.num_negatives)
        self.guard = EnergyGuard(self.config.stop_factor)

        noise = NoiseLevel(objective.P_mean, objective.P_std, net.sigma_data)
        self.source = MinibatchSource(
            dataset,
            objective,
            self.method.tuples,
            self.method.label_dropout,
            noise,
            self.config.batch_size,
            self.seed,
            ranks,
            self.config.flip,
        )
        self.use(Aids())

        self.net = net.to(ranks.device).train()
        self.net.logvar_linear.requires_grad_(self.loss.uses_logvar)
        ranks.share(self.net.parameters())
        force_weight_norm_(self.net)
        self.placement = place(self.net, ranks, self.config.sharding)
        params = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        self.ema: ParameterEMA
        if self.config.ema == "power":
            self.ema = PowerFunctionEMA(params, self.config.ema_stds)
        else:
            self.ema = PlainEMA(params, self.config.ema_beta)
        make_optimizer = OPTIMIZERS[self.config.optimizer]
        self.optimizer = make_optimizer(params, self.ema, normalized_weights(self.net), self.config.betas)
        self.loss_scale = LossScale(self.net.dtype)
        self.schedule = EDM2Schedule(self.config.lr, self.config.ref_batches, self.config.warmup_images / 1e6)
        if self.config.lr_schedule == "hold":
            self.schedule = HoldSchedule(self.config.lr, self.config.warmup_images)
        self.fault = Fault(ranks.rank, self.config.batch_size)
        run = hashlib.sha256(json.dumps(flat(config), sort_keys=True).encode()).hexdigest()[:16]
        self.states = TrainingStates(state_folder, ranks, run, self.config.keep_checkpoints, self.fault)
        self._load()

    def use(self, aids: Aids) -> None:
        """Train with this reference, these samples or ratios from here on."""
        self.loss = self.method.loss(self.method.objective, aids)
        self.source.samples = aids.samples

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
        bar = progress_bar(self.arm, config.duration, self.images_seen, self.ranks.is_main)
        with bar:
            while self.images_seen < images and not self.stopped:
                started = time.perf_counter()
                lr = self.schedule(self.images_seen, config.batch_size)
                loss, energies, finite, stop_requested = self._accumulate()
                before = self.images_seen
                self.images_seen += config.batch_size
                overflow = not finite and math.isfinite(loss) and not self.loss_scale.at_lowest
                bad = not (finite or overflow)  # a lower loss scale would not mend it
                if finite:
                    self.optimizer.step(lr, self.images_seen, config.batch_size)
                else:
                    if bad:
                        self._allow_bad_batch(loss)
                    self.optimizer.skip(self.images_seen, config.batch_size)
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                if not bad:
                    self.loss_scale.look(finite)
                    self.guard.look(**self._means(energies))
                self.fault.at("update", self.images_seen)

                bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
                bar.update(config.batch_size)
                if not bad and self._crossed(before, config.log_every or 1):
                    self._log(loss, energies, lr, config.batch_size / elapsed)
                if stop_requested:
                    self.save()
                    self.states.wait()
                    raise Interrupted
                if config.checkpoint_every and self._crossed(before, config.checkpoint_every):
                    self.save()

    def average_state(self, label: str | None = None) -> dict[str, Tensor]:
        """state_dict of the network with an average (default: the first) in place of the trained parameters.

        All ranks must call it: what is sharded is gathered.
        """
        averages = self.ema.weights()
        average = averages[label or next(iter(averages))]
        return published(self.placement.full(self._tensors()["net"] | average))

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
        self.states.save(self.images_seen, self._tensors(), meta)

    def _accumulate(self) -> tuple[float, list[float], bool, bool]:
        """Gradients of one step -> mean loss, mean energy per column, finite or not, signal or none."""
        try:
            batch = self.source.draw(self.images_seen)
        except (ValueError, OSError) as error:  # a minibatch without negatives, an unreadable image
            raise RunError(str(error)) from error
        # The loss is a mean over the global minibatch.
        scale = self.loss_scale.value / self.config.batch_size
        totals = torch.zeros(3 + self.num_columns, dtype=torch.float64, device=self.ranks.device)
        totals[0] = self.stop.requested
        parts = micro_batches(batch, self.config.micro_batch, separable=self.method.separable)
        for part in self.placement.over(parts, 1 / self.loss_scale.value):
            if self.config.dropout > 0:
                self.net.dropout_key = DropoutKey(self.seed, part.position)
            loss, energies = self.loss.backward(self.net, part, self.seed, scale)
            totals[2] += loss
            totals[3:] += energies
        totals[1] = ~self.optimizer.finite()
        # SYNC: loss and gradients decide whether the update may be made.
        stop_requested, overflows, loss, *energies = self.ranks.sum(totals).tolist()
        num_images = self.config.batch_size
        means = [e / num_images for e in energies]
        finite = math.isfinite(loss) and overflows == 0
        return loss / num_images, means, finite, stop_requested > 0

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

    def _crossed(self, before: int, interval: int) -> bool:
        """Whether this step passed a multiple of `interval` images."""
        return self.images_seen // interval > before // interval

    def _log(self, loss: float, energies: list[float], lr: float, images_per_second: float) -> None:
        line = {"arm": self.arm, "images_seen": self.images_seen, "loss": loss}
        line |= self._means(energies)
        line |= {"lr": lr, "seconds": self.seconds, "images_per_second": images_per_second}
        line["data_seconds"] = self.source.waited
        line |= self.loss_scale.line()
        self.log.write(line)

    def _means(self, energies: list[float]) -> dict[str, float]:
        """What the log calls the columns: positive, the negatives' mean, and a sample that is neither."""
        negatives, sample = energies[1 : 1 + self.num_negatives], energies[1 + self.num_negatives :]
        means = {"positive": energies[0]}
        if negatives:
            means["negative"] = sum(negatives) / len(negatives)
        return means | ({"sample": sample[0]} if sample else {})

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """The state, as it lives: groups of tensors, DTensors where sharded; gains are [1] in all of them."""
        return {
            "net": {n: t.detach() for n, t in (*self.net.named_parameters(), *self.net.named_buffers())},
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def _load(self) -> None:
        """Go on from the newest sound state, if there is one; the log goes back to it."""
        live = self._tensors()
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
