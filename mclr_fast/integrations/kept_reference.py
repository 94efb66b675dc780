"""What a loss keeps in others' checkpoints: its settings, and the frozen reference that it compares with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from .frozen_reference import FrozenReference

GIVEN = "the given net"  # what a reference is called that has no path


@dataclass(eq=False)
class LossState:
    """A loss whose fields are its state."""

    def __getstate__(self) -> dict:
        """Numbers, strings and tensors only, so that torch.load(weights_only=True) reads a checkpoint."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __setstate__(self, state: dict) -> None:
        """Restore. In a loss that was constructed the constructor's settings stay."""
        self.__dict__ = {**state, **self.__dict__}


@dataclass(eq=False)
class KeptReference(LossState):
    """A loss that compares with a frozen reference; its subclasses have a field `reference`.

    The reference is the model at `reference` (what `mclr_fast.models.load` reads), a copy of that network
    where it is one, or else of the net at the first call. Its weights and their hash are part of the loss's
    state, because a checkpoint restores the loss into a run whose net is already fine-tuned.

    Attributes: reference_dtype: what its parameters are kept in; None: what they are in.
    """

    reference_dtype: ClassVar[torch.dtype | None] = None

    _frozen = None  # built when it is needed
    reference_weights: dict[str, Tensor] | None = field(default=None, init=False, repr=False)
    reference_sha256: str | None = field(default=None, init=False)

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.reference, nn.Module):
            given, self.reference = self.reference, GIVEN
            self._keep(FrozenReference.of(given, self.reference_dtype, GIVEN))
        elif self.reference is not None:
            self.reference = os.fspath(self.reference)
            self._keep(FrozenReference.at(self.reference, self.reference_dtype))

    def _keep(self, reference: FrozenReference) -> None:
        self._frozen = reference
        self.reference_weights, self.reference_sha256 = reference.weights, reference.sha256

    def frozen_network(self, net: nn.Module) -> nn.Module:
        """The reference, built like `net`; where there is none yet, `net` as it is now."""
        if self._frozen is None:  # the first call, or the first after a restart
            if self.reference_weights is None:
                self._keep(FrozenReference.of(net, self.reference_dtype))
            else:
                self._keep(FrozenReference(self.reference_weights, self.reference or "the saved reference"))
        return self._frozen.network(net)

    def __setstate__(self, state: dict) -> None:
        """Restore, and check that the reference is whole and the one that `reference` names."""
        saved = state.get("reference_weights")
        if saved is not None:
            frozen = FrozenReference(saved, "the saved reference")
            if frozen.sha256 != state["reference_sha256"]:
                raise ValueError("the saved reference is damaged: its hash is not the one saved with it.")
            given = self.__dict__.get("reference")
            if given is not None and self.reference_sha256 != frozen.sha256:
                raise ValueError(
                    f"this run was trained against the reference {frozen.sha256[:12]}, but {given} is "
                    f"{self.reference_sha256[:12]}: give the reference it began with, or start a new run."
                )
            self.__dict__.update({name: state[name] for name in ("reference_weights", "reference_sha256")})
            self._frozen = None
        super().__setstate__(state)
