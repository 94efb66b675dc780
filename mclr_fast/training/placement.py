"""Where a trained network's parameters live: whole on every rank, or sharded over the ranks (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Protocol

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mclr_fast.models import Family
from mclr_fast.models.rows import Rows
from mclr_fast.runtime.ranks import Ranks

SHARDED_FROM = 1_000_000_000  # parameters
Sharding = Literal["auto", "replicate", "shard"]


class Placement(Protocol):
    """A way of spreading a network over ranks. Between steps its parameters hold this rank's part."""

    def over(self, parts: Iterable[Rows], loss_scale: float = 1.0) -> Iterator[Rows]:
        """The micro-batches of a step, each to be back-propagated before the next is taken.

        After the last, every parameter's gradient is the sum over micro-batches and ranks. `loss_scale` is
        put into the parts, and taken out of the gradients on their way to the parameters: here alone.
        Communication is that of one micro-batch, however many there are, and ranks may have unequal numbers.
        """
        ...

    def full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors, on every rank; all ranks must call it."""
        ...


def place(net: nn.Module, family: Family, ranks: Ranks, sharding: Sharding) -> Placement:
    """Place a network that every rank holds whole. With one rank there is nothing to shard."""
    return (Sharded if shards(net, ranks.size, sharding) else Replicated)(net, family, ranks)


def shards(net: nn.Module, num_ranks: int, sharding: Sharding) -> bool:
    """Whether `place` would shard it."""
    if num_ranks == 1:
        return False
    large = sum(parameter.numel() for parameter in net.parameters()) >= SHARDED_FROM
    return sharding == "shard" or (sharding == "auto" and large)


class Replicated:
    """Every rank has it all. What a step computes with is made once, its gradients reduced as one tensor."""

    def __init__(self, net: nn.Module, family: Family, ranks: Ranks):
        """net: on its device; its parameters are held by reference."""
        self.weights = family.step_weights(net)
        self.reduce = ranks.sum if ranks.size > 1 else None

    def over(self, parts: Iterable[Rows], loss_scale: float = 1.0) -> Iterator[Rows]:
        """As `Placement.over`."""
        with self.weights.held():
            for part in parts:
                yield part.scaled(loss_scale)
                self.weights.accumulate()
        self.weights.backward(self.reduce, 1 / loss_scale)

    def full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Placement.full`; no copies."""
        return {name: tensor.detach() for name, tensor in tensors.items()}


class Sharded:
    """FSDP2, by the family's groups: parameters, moments and averages are split by output channels.

    A step gathers each group's parameters once, before its first forward, and reduces their gradients once,
    in its last backward; between the two they stay gathered, whatever the number of micro-batches. They are
    gathered in float32: layers may normalise their own weights, and those of rounded weights would differ.
    """

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

    def over(self, parts: Iterable[Rows], loss_scale: float = 1.0) -> Iterator[Rows]:
        """As `Placement.over`."""
        parts = list(parts)
        for module in self.net.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(loss_scale)  # the sum: the loss has the global batch in it
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            self.net.set_requires_gradient_sync(is_last)
            self.net.set_reshard_after_backward(is_last)
            self.net.set_is_last_backward(is_last)
            yield part.scaled(loss_scale)

    def full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Placement.full`; gathered one by one, to the CPU."""
        return {
            name: (tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()).cpu()
            for name, tensor in tensors.items()
        }
