"""The loop: one arm of a run, from its start or its saved state to any number of images."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.models import check_state
from mclr_fast.models.edm2 import DropoutKey, force_weight_norm_, normalized_weights, published
from mclr_fast.objectives import NoiseLevel

from .checkpoint import load_tensors, save_tensors
from .distributed import Ranks, local
from .ema import ParameterEMA, PlainEMA, PowerFunctionEMA
from .errors import Interrupted, RunError
from .logs import RunLog, progress_bar
from .loss_scale import LossScale
from .methods import Aids, make_method
from .minibatch import MinibatchSource, micro_batches
from .optimizer import OPTIMIZERS
from .placement import place
from .schedule import EDM2Schedule, HoldSchedule
from .signals import StopRequest
from .stopping import EnergyGuard
from .tuples import num_columns


class Trainer:
    """Trains one network with one objective.

    Args:
        arm: names this training in the log ("mclr", or "denoising" for the control).
        config: the run; net: the unwrapped network, on the CPU; dataset: what it trains on.
        state_path: where the state is saved, and resumed from if it is there.
        stop: looked at after every step.

    An objective that needs a reference, samples or ratios gets them by `use`, before the first step.

    Attributes: images_seen, the clock; stopped: why the guard stopped it, or None.
    """

    def __init__(
        self,
        arm: str,
        config: RunConfig,
        net: nn.Module,
        dataset: Dataset,
        ranks: Ranks,
        log: RunLog,
        state_path: Path,
        stop: StopRequest,
    ):
        self.arm = arm
        self.config = config.train
        self.seed = config.seed
        self.ranks = ranks
        self.log = log
        self.state_path = state_path
        self.stop = stop
        self.images_seen = 0
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
        if state_path.exists():
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

        Errors    RunError when the loss is not finite (before the update); Interrupted after a signal
                  (after saving).
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
                if finite:
                    self.optimizer.step(lr, self.images_seen, config.batch_size)
                else:
                    self.optimizer.skip(self.images_seen, config.batch_size)
                self.loss_scale.look(finite)
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                self.guard.look(**self._means(energies))

                bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
                bar.update(config.batch_size)
                if self._crossed(before, config.log_every or 1):
                    self._log(loss, energies, lr, config.batch_size / elapsed)
                if stop_requested:
                    self.save()
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
        """Write the whole state, atomically (rank 0). RunError when a parameter is not finite."""
        self._check_finite()
        groups = {name: self.placement.full(tensors) for name, tensors in self._tensors().items()}
        meta = {"images_seen": self.images_seen, "seconds": self.seconds, "guard": self.guard.state()}
        meta["loss_scale"] = self.loss_scale.state()
        self.ranks.on_main(save_tensors, self.state_path, groups, meta)

    def _accumulate(self) -> tuple[float, list[float], bool, bool]:
        """Gradients of one step -> mean loss, mean energy per column, finite or not, signal or none.

        Not finite are only gradients that a lower loss scale may mend; others are a RunError.
        """
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
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at {self.images_seen:,} images (arm {self.arm}): stopped before "
                f"the update. {self._last_good()} Lower --lr, or look at the data."
            )
        if overflows and self.loss_scale.at_lowest:
            raise RunError(
                f"the gradient of {self.optimizer.first_not_finite()} is not finite at {self.images_seen:,} "
                f"images (arm {self.arm}), loss scale {self.loss_scale.value:g}: stopped before the update. "
                f"{self._last_good()} Lower --lr, or look at the data."
            )
        num_images = self.config.batch_size
        means = [e / num_images for e in energies]
        return loss / num_images, means, overflows == 0, stop_requested > 0

    def _last_good(self) -> str:
        if not self.state_path.exists():
            return "No checkpoint was saved yet."
        return f"Last good checkpoint: {self.state_path}."

    def _crossed(self, before: int, interval: int) -> bool:
        """Whether this step passed a multiple of `interval` images."""
        return self.images_seen // interval > before // interval

    def _log(self, loss: float, energies: list[float], lr: float, images_per_second: float) -> None:
        line = {"arm": self.arm, "images_seen": self.images_seen, "loss": loss}
        line |= self._means(energies)
        line |= {"lr": lr, "seconds": self.seconds, "images_per_second": images_per_second}
        line |= self.loss_scale.line()
        self.log.write(line)

    def _means(self, energies: list[float]) -> dict[str, float]:
        """What the log calls the columns: positive, the negatives' mean, and a sample that is neither."""
        negatives, sample = energies[1 : 1 + self.num_negatives], energies[1 + self.num_negatives :]
        means = {"positive": energies[0]}
        if negatives:
            means["negative"] = sum(negatives) / len(negatives)
        return means | ({"sample": sample[0]} if sample else {})

    def _check_finite(self) -> None:
        """RunError, on all ranks, naming the first parameter that is not finite on any."""
        params = dict(self.net.named_parameters())
        broken = torch.stack([~torch.isfinite(local(p)).all() for p in params.values()]).int()
        for name, count in zip(params, self.ranks.sum(broken).tolist(), strict=True):
            if count:
                raise RunError(
                    f"{name} is not finite at {self.images_seen:,} images (arm {self.arm}): not "
                    f"saved. {self._last_good()} Lower --lr."
                )

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """The state, as it lives: groups of tensors, DTensors where sharded; gains are [1] in all of them."""
        return {
            "net": dict(self.net.named_parameters()) | dict(self.net.named_buffers()),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def _load(self) -> None:
        groups, meta = load_tensors(self.state_path)
        try:
            live = self._tensors()
            check_state(live["net"], groups["net"], self.state_path)
            groups = {name: self.placement.own(tensors, live[name]) for name, tensors in groups.items()}
            self.net.load_state_dict(groups["net"])
            self.optimizer.load_state_dict(groups["optimizer"])
            self.ema.load_state_dict(groups["ema"])
            self.guard.load(meta["guard"])
            self.loss_scale.load(meta["loss_scale"])
        except (KeyError, ValueError) as error:
            raise RunError(
                f"{self.state_path} is not a state of this run ({error}). Choose another --outdir."
            ) from error
        self.images_seen, self.seconds = meta["images_seen"], meta["seconds"]
        if self.ranks.is_main:
            self.log.rewind(self.arm, self.images_seen)
