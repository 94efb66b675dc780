"""Rounds of training: at some marks the average becomes the frozen reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mclr_fast.methods.needs import AidMaker
from mclr_fast.models import save_model
from mclr_fast.runtime.errors import RunError
from mclr_fast.training.trainer import Trainer

from .marks import Mark


class Rounds:
    """Gives a trainer its aids, and at every mark of a new round the average as its new reference."""

    def __init__(self, trainer: Trainer, aids: AidMaker, marks: Sequence[Mark], folder: Path):
        """folder: where each round's reference is kept, as a model."""
        self.trainer, self.aids, self.folder = trainer, aids, folder
        self.starts = [mark.images_seen for mark in marks if mark.new_round]  # of rounds 1, 2, ...
        self.number: int | None = None

    def enter(self) -> None:
        """See to it that the trainer has the aids of the round that it is in. RunError if they are lost."""
        number = sum(start <= self.trainer.images_seen for start in self.starts)
        if number == self.number:
            return
        path = self.folder / f"round-{number}" if number else None
        ranks = self.trainer.ranks
        if path is not None and not ranks.on_main((path / "model.safetensors").exists):
            if self.trainer.images_seen != self.starts[number - 1]:
                raise RunError(f"{path}, the reference of round {number}, is missing: begin the run again.")
            ranks.on_main(save_model, path, self.trainer.average_state(), self.aids.model)
        self.trainer.use(self.aids.make(path, number))
        self.number = number
