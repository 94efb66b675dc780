"""Rounds of training: at some marks the average becomes the frozen reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mclr_fast.methods.needs import NeedMaker
from mclr_fast.models import save_model
from mclr_fast.runtime.errors import RunError
from mclr_fast.training.trainer import Trainer

from .marks import Mark


class Rounds:
    """Gives a trainer what its objective needs, and at every mark of a new round its new reference."""

    def __init__(self, trainer: Trainer, needs: NeedMaker, marks: Sequence[Mark], folder: Path):
        """folder: where each round's reference is kept, as a model."""
        self.trainer, self.needs, self.folder = trainer, needs, folder
        self.starts = [mark.images_seen for mark in marks if mark.new_round]  # of rounds 1, 2, ...
        self.number: int | None = None

    def enter(self) -> None:
        """See to it that the trainer has what this round needs. RunError if that is lost."""
        number = sum(start <= self.trainer.images_seen for start in self.starts)
        if number == self.number:
            return
        path = self.folder / f"round-{number}" if number else None
        ranks = self.trainer.ranks
        if path is not None and not ranks.on_main((path / "model.safetensors").exists):
            if self.trainer.images_seen != self.starts[number - 1]:
                raise RunError(f"{path}, the reference of round {number}, is missing: begin the run again.")
            ranks.on_main(save_model, path, self.trainer.average_state(), self.needs.description)
        self.trainer.use(self.needs.make(path, number))
        self.number = number
