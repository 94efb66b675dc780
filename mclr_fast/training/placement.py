"""Where a trained network's parameters live: whole on every rank, or sharded over the ranks (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mclr_fast.models import Family
from mclr_fast.models.rows import Rows
from mclr_fast.runtime.device.graphs import Procedures
from mclr_fast.runtime.process.ranks import Ranks

SHARDED_FROM = 1_000_000_000  # parameters
Sharding = Literal["auto", "replicate", "shard"]
Scores = tuple[Tensor, Tensor]
Score = Callable[[Rows], Scores]
"""Back-propagates a micro-batch; its loss and its energies' sums (`methods.losses.Loss.backward`)."""


class Placement(Protocol):
    """A way of spreading a network over ranks. Between steps its parameters hold this rank's part.

    Attributes: copies, the number of ranks that hold each gradient.
    """

    copies: int

    def backward(self, score: Score, parts: Iterable[Rows], loss_scale: float = 1.0) -> Iterator[Scores]:
        """The scores of a step's micro-batches, each to be read before the next is taken.

        After the last, every parameter's gradient is the sum over micro-batches and ranks. `loss_scale` is
        put into the parts, and taken out of the gradients on their way to the parameters: here alone.
        Communication is that of one micro-batch, however many there are, and ranks may have unequal numbers.
        """
        ...

    def full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors, on every rank; all ranks must call it."""
        ...

    def forget(self) -> None:
        """Let go of what was captured: `score` is another from now on."""
        ...

    def make_room(self) -> None:
        """Others compute now: let go of what was captured where memory is tight."""
        ...


def place(
    net: nn.Module, family: Family, ranks: Ranks, sharding: Sharding, graphs: Procedures | None = None
) -> Placement:
    """Place a network that every rank holds whole. With one rank there is nothing to shard.

    graphs: captures what a rank that holds it whole repeats.
    """
    if shards(net, ranks.size, sharding):
        return Sharded(net, family, ranks)
    return Replicated(net, family, ranks, graphs or Procedures(None))


def shards(net: nn.Module, num_ranks: int, sharding: Sharding) -> bool:
    """Whether `place` would shard it."""
    if num_ranks == 1:
        return False
    large = sum(parameter.numel() for parameter in net.parameters()) >= SHARDED_FROM
    return sharding == "shard" or (sharding == "auto" and large)


def capture_words(net: nn.Module, ranks: Ranks, sharding: Sharding, cuda_graphs: str) -> str:
    """How a GPU runs micro-batches, and why, for a run's first line; nothing on a CPU."""
    if ranks.device.type != "cuda":
        return ""
    if cuda_graphs == "off":
        return ", kernel by kernel (--cuda-graphs off)"
    if shards(net, ranks.size, sharding):
        return ", kernel by kernel (FSDP2)"
    return ", micro-batches as CUDA graphs"


class Replicated:
    """Every rank has it all. What a step computes with is made once, its gradients reduced as one tensor."""

    def __init__(self, net: nn.Module, family: Family, ranks: Ranks, graphs: Procedures):
        """net: on its device; its parameters are held by reference."""
        self.weights = family.step_weights(net)
        self.like_gradients = self.weights.like_gradients
        self.ranks, self.copies = ranks, ranks.size
        self.graphs = graphs
        self._sums: GradientSums | None = None

    def backward(self, score: Score, parts: Iterable[Rows], loss_scale: float = 1.0) -> Iterator[Scores]:
        """As `Placement.backward`.

        Gradients of one micro-batch on one rank stay as they are; others are added up in float32.
        """
        parts = [part.scaled(loss_scale) for part in parts]
        sums = self._empty_sums() if len(parts) != 1 or self.ranks.size > 1 else None
        grads: list[Tensor | None] = []
        with self.weights.held(self.graphs("weights", self.weights.make, is_read=True)):
            for part in parts:
                loss, energies, *grads = self._micro_batch(score, part, sums)
                yield loss, energies
        if sums is not None:
            self.ranks.sum(sums.flat)
            grads = sums.parts
        scale = () if loss_scale == 1 else (grads[0].new_full((1,), 1 / loss_scale, dtype=torch.float32),)
        self.weights.backward(grads, *scale)

    def full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Placement.full`; no copies."""
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def forget(self) -> None:
        """As `Placement.forget`."""
        self.graphs.forget()

    def make_room(self) -> None:
        """As `Placement.make_room`."""
        self.graphs.make_room()

    def _micro_batch(self, score: Score, part: Rows, sums: GradientSums | None) -> list[Tensor]:
        """Loss and energies; without sums also the gradients."""

        def procedure(*tensors: Tensor) -> list[Tensor]:
            self.weights.take()  # what a capture that failed may have left
            scores = score(part.with_tensors(tensors))
            grads = self.weights.take()
            if sums is None:
                grads = [
                    torch.zeros_like(like, device=part.x.device) if grad is None else grad
                    for grad, like in zip(grads, self.like_gradients, strict=True)
                ]
                return [*scores, *grads]
            sums.add_(grads)
            return [*scores]

        key = part.shared, tuple(part.law), part.seed, part.num_columns, sums is None
        return self.graphs(key, procedure, *part.tensors)

    def _empty_sums(self) -> GradientSums:
        if self._sums is None:
            self._sums = GradientSums(self.like_gradients, self.ranks.device)
        self._sums.flat.zero_()
        return self._sums


class GradientSums:
    """Sums of gradients in float32, in one tensor. Attributes: flat; parts, views of it, one a gradient."""

    def __init__(self, like: list[Tensor], device: torch.device):
        """like: of the gradients' shapes and strides, dense."""
        self.flat = torch.zeros(sum(tensor.numel() for tensor in like), device=device)
        pieces = self.flat.split([tensor.numel() for tensor in like])
        self.parts = [
            piece.as_strided(tensor.shape, tensor.stride(), piece.storage_offset())
            for piece, tensor in zip(pieces, like, strict=True)
        ]

    def add_(self, grads: list[Tensor | None]) -> None:
        """Add a micro-batch's; None adds nothing."""
        for part, grad in zip(self.parts, grads, strict=True):
            if grad is not None:
                part.add_(grad)


class Sharded:
    """FSDP2, by the family's groups: parameters, moments and averages are split by output channels.

    A step gathers each group's parameters once, before its first forward, and reduces their gradients once,
    in its last backward; between the two they stay gathered, whatever the number of micro-batches. They are
    gathered in float32: layers may normalise their own weights, and those of rounded weights would differ.
    """

    copies = 1

    def __init__(self, net: nn.Module, family: Family, ranks: Ranks):
        """net: on its device, whole; it is changed in place, and its parameters become DTensors."""
        self.net = net
        self.mesh = init_device_mesh(ranks.device.type, (ranks.size,))  # the default may be another device's
        precision = MixedPrecisionPolicy(cast_forward_inputs=False)
        for module in (*family.shard_groups(net), net):
            fully_shard(module, mesh=self.mesh, reshard_after_forward=False, mp_policy=precision)
        for module in net.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        # A network's result may be a view (the rows' columns), which nobody writes to.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")

    def backward(self, score: Score, parts: Iterable[Rows], loss_scale: float = 1.0) -> Iterator[Scores]:
        """As `Placement.backward`."""
        parts = list(parts)
        for module in self.net.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(loss_scale)  # the sum: the loss has the global batch in it
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            self.net.set_requires_gradient_sync(is_last)
            self.net.set_reshard_after_backward(is_last)
            self.net.set_is_last_backward(is_last)
            yield score(part.scaled(loss_scale))

    def full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Placement.full`; gathered one by one, to the CPU."""
        return {
            name: (tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()).cpu()
            for name, tensor in tensors.items()
        }

    def forget(self) -> None:
        """As `Placement.forget`: nothing is captured."""

    def make_room(self) -> None:
        """As `Placement.make_room`."""
