"""GPU memory of a training step, counted on the meta device: nothing is computed, no weight is made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mclr_fast.config import RunConfig
from mclr_fast.methods.losses import Loss
from mclr_fast.methods.own_energies import images_at_once, keeps_own_energies
from mclr_fast.methods.registry import Needs, make_method
from mclr_fast.models import Model
from mclr_fast.models.family import Frozen
from mclr_fast.models.rows import Rows
from mclr_fast.ops import FLOPS

from .made_up_rows import even_ratio, made_up_rows, row_shape
from .placement import shards

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}  # "auto" is bfloat16 on any GPU that this is for
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, at the fullest moment of a step.

    Attributes:
        parameters, moments, averages: what lasts, of this GPU's part.
        reference: the frozen network's effective weights.
        effective: the effective weights, and, sharded, the gathered parameters.
        gradients: sums over micro-batches.
        activations: what else a micro-batch holds, and the step's images; or, where that is more, the
            reduction of gradients, or what it takes to make the reference's energies that are kept.
    """

    parameters: int
    moments: int
    averages: int
    reference: int
    effective: int
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


class StepMemory:
    """Counts a run's step for any number of GPUs and any micro-batch."""

    def __init__(self, config: RunConfig, model: Model, num_images: int | None = None):
        """model: the trained network's description; num_images: of the data, where that is known."""
        self.config = config
        self.num_images = num_images
        self.model, self.family = model, model.family
        self.method = make_method(config.objective)
        self.num_columns = len(self.method.columns.kinds(config.objective.num_negatives))
        self.keeps_own_energies = num_images is not None and keeps_own_energies(
            config, self.method, self.family, num_images
        )
        self.dtype = DTYPES.get(config.train.precision, torch.bfloat16)
        self.net = self._build()
        trained = self.family.trainable(self.net, own_loss=self.method.entry.trains_own_loss)
        self.trained = list(trained)
        for parameter in self.net.parameters():
            parameter.requires_grad_(any(parameter is p for p in self.trained))
        self.micro_batch_bytes = lru_cache(self._micro_batch_bytes)

    def of(self, num_gpus: int, micro_batch: int) -> Memory:
        """A rank's step in micro-batches of so many evaluations (0 = one)."""
        net, train = self.net, self.config.train
        is_sharded = shards(net, num_gpus, train.sharding)
        split = num_gpus if is_sharded else 1
        whole, own = _bytes(self.trained), _bytes(self.trained, split)

        rows = self.rows(num_gpus)
        height, width = self.part(num_gpus, micro_batch)
        num_parts = -(-rows // height) * -(-self.num_columns // width)
        adds_up = num_parts > 1 or (num_gpus > 1 and not is_sharded)
        gradients = whole * adds_up
        activations = self.micro_batch_bytes(height, width, is_sharded)
        effective = self.effective
        if is_sharded:
            effective += _bytes(net.parameters())
            reduction = own + 2 * self.largest_group
        else:  # the sums, or the only micro-batch's own, then the parameters' gradients in the weights' place
            reduction = whole - effective * adds_up
        activations = max(activations, reduction) + self._images(rows)
        if self.keeps_own_energies:
            activations = max(activations, self.making_bytes(num_gpus) - effective - gradients)
        num_averages = len(train.ema_stds) if train.ema == "power" else 1
        return Memory(
            parameters=_bytes(net.parameters(), split),
            moments=2 * own,
            averages=num_averages * own,
            reference=(self.effective or _bytes(net.parameters())) * self.method.needs_reference,
            effective=effective,
            gradients=gradients,
            activations=activations,
        )

    def largest(self, num_gpus: int, num_bytes: float) -> int:
        """The largest micro-batch that fits, in evaluations; 0 if none does."""
        columns, rows = self.num_columns, self.rows(num_gpus)
        found = columns * _last(lambda height: self.of(num_gpus, height * columns).total, num_bytes, rows)
        if not found and self.method.separable:
            found = _last(lambda width: self.of(num_gpus, width).total, num_bytes, columns)
        return found

    def rows(self, num_gpus: int) -> int:
        """Images of a step on the fullest rank."""
        return -(-self.config.train.batch_size // num_gpus)

    def part(self, num_gpus: int, micro_batch: int) -> tuple[int, int]:
        """Rows and columns of a micro-batch (`Rows.micro_batches`)."""
        rows = self.rows(num_gpus)
        size = micro_batch or rows * self.num_columns
        return min(max(size // self.num_columns, 1), rows), min(size, self.num_columns)

    @cached_property
    def effective(self) -> int:
        """Bytes of what is made of the parameters once a step; 0 where a step computes with them."""
        weights = self.family.step_weights(self.net)
        with torch.device("meta"), PeakBytes() as count, weights.held():
            return count.live

    @property
    def largest_group(self) -> int:
        """Bytes of the parameters that FSDP2 gathers at once."""
        groups = [_bytes(module.parameters()) for module in self.family.shard_groups(self.net)]
        return max(*groups, _bytes(self.net.parameters()) - sum(groups))

    def micro_batch(self, height: int, width: int, is_sharded: bool, count: TorchDispatchMode) -> None:
        """Forward and backward of one with so many rows and columns, inside `count`."""
        own = self.keeps_own_energies and width == self.num_columns  # of a row that is cut, the fuller parts
        rows, reference = self._rows(height, width, own_reference=own), None
        with torch.device("meta"):
            if self.method.needs_reference:
                reference = self.family.frozen(self._build())
            loss, net = self._loss(reference), self.net
            weights = self.family.step_weights(net)
            with count:
                if is_sharded:  # each layer makes its own from the gathered parameters
                    loss.backward(net, rows)
                else:
                    with weights.held():
                        loss.backward(net, rows)
                        weights.take()
        net.zero_grad()

    def _micro_batch_bytes(self, height: int, width: int, is_sharded: bool) -> int:
        """Forward and backward of one, beyond parameters and effective weights."""
        count = PeakBytes()
        self.micro_batch(height, width, is_sharded, count)
        return count.peak - self.effective

    def making_bytes(self, num_gpus: int) -> int:
        """Of a rank's GPU while the reference's energies that are kept are made, beyond its weights."""
        count = PeakBytes()
        self._call(min(images_at_once(self.config.train, num_gpus), self.num_images), count)
        return count.peak

    @property
    def num_made(self) -> int:
        """How many energies of the reference are made once and kept, over all rounds."""
        train, every = self.config.train, self.config.objective.refresh_every
        rounds = -(-train.duration // every) if every else 1
        return self.num_images * rounds if self.keeps_own_energies else 0

    @cached_property
    def flops(self) -> tuple[int, int]:
        """Floating-point operations of an image's part of a step, and of a network call that samples one."""
        step, call = (FlopCounterMode(display=False, custom_mapping=FLOPS) for _ in range(2))
        self.micro_batch(1, self.num_columns, False, step)
        self._call(1, call)
        return step.get_total_flops(), call.get_total_flops()

    def _call(self, num_images: int, count: TorchDispatchMode) -> None:
        """Energies of images under a label each, without gradients, inside `count`."""
        rows = self._rows(num_images, 1)
        with torch.device("meta"), torch.no_grad(), count:
            self.family.energies(self.net, self.family.inputs(self.net, rows), rows.labels)

    def _rows(self, height: int, width: int, *, own_reference: bool = False) -> Rows:
        kinds = (self.model, self.config.objective, self.method.columns)
        return made_up_rows(*kinds, height, width, torch.device("meta"), own_reference=own_reference)

    def _images(self, rows: int) -> int:
        shape = row_shape(self.model, self.method.columns, rows, self.num_columns)
        size = torch.Size(shape).numel()
        return size * self.model.facts.dtype.itemsize

    def _build(self) -> nn.Module:
        with torch.device("meta"):
            return self.model.build(dtype=self.dtype, dropout=self.config.train.dropout)

    def _loss(self, reference: Frozen | None) -> Loss:
        ratio = even_ratio if self.method.needs_ratio else None  # the classifier's own memory is not counted
        return self.method.loss(self.family, Needs(reference, ratio=ratio))


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside. Attributes: live, those still there; peak."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outside = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), outside)
        return result

    def _count(self, storage: torch.UntypedStorage, outside: set[int]) -> None:
        key = storage._cdata
        if key in self._sizes or key in outside:  # a view
            return
        self._sizes[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _bytes(parameters, num_parts: int = 1) -> int:
    """Of float32 parameters, or of the largest of `num_parts` shards by output channels."""
    rows = ((p.shape[0] if p.ndim else 1, p.numel()) for p in parameters)
    return sum(4 * -(-count // num_parts) * (numel // max(count, 1)) for count, numel in rows)


def _last(size_of: Callable[[int], int], num_bytes: float, high: int) -> int:
    """The last n in [1, high] whose size fits, 0 if none. Sizes grow about evenly, so few are asked for."""
    low, low_size, high_size = 0, 0.0, float(size_of(high))
    if high_size <= num_bytes:
        return high
    while high - low > 1:
        share = (num_bytes - low_size) / (high_size - low_size) if low else 1 / (high - low)
        n = min(max(low + int(share * (high - low)), low + 1), high - 1)
        size = size_of(n)
        if size <= num_bytes:
            low, low_size = n, size
        else:
            high, high_size = n, size
    return low
