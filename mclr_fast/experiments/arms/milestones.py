"""What a run that nothing judges keeps on its way: at every milestone a model, and samples to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mclr_fast.config import RunConfig
from mclr_fast.data import Dataset
from mclr_fast.data.image_files import write_png
from mclr_fast.evaluation.grid_samples import classes_of_grid, grid_samples
from mclr_fast.evaluation.rows import Kind
from mclr_fast.models import Model, save_model
from mclr_fast.reports.grid import GridEntry, read_grid, sheet, write_grid
from mclr_fast.runtime.errors import RunError, one_line
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from ..ready_model import decoder_of
from .watch import Watch

FOLDER = "milestones"


class Milestones:
    """Keeps models and grids in the run's folder, `milestones/<arm>-<images seen>/`.

    A run whose samples cannot be decoded here (latents without --vae, or without diffusers) says so once and
    keeps the models alone. All ranks call its methods.

    Attributes: grid_seeds, grid_classes: the noises and the columns of the grids.
    """

    def __init__(
        self, config: RunConfig, model: Model, dataset: Dataset, watch: Watch, ranks: Ranks, stop: StopRequest
    ):
        self.config, self.model, self.watch, self.ranks, self.stop = config, model, watch, ranks, stop
        self.folder = config.folder / FOLDER
        self._codec = model.codec(dataset)
        first = config.eval.first_seed
        self.grid_seeds = list(range(first, first + config.eval.grid_noises))
        self.grid_classes = classes_of_grid(model.classes.trained)

    def keep(
        self,
        name: str,
        kind: Kind,
        images_seen: int,
        net: nn.Module,
        state: Mapping[str, Tensor],
        description: Mapping[str, Any],
    ) -> None:
        """Keep this state as a model, and its samples; what is there whole is not made again.

        net: takes it on, on the run's device.
        """
        folder = self._folder(name, images_seen)
        if self.ranks.on_main((folder / "model.safetensors").exists):
            return
        if self._decode is not None:
            net.load_state_dict(state)
            self._show(net, name, kind, images_seen)
        said = {**description, "images_seen": images_seen}
        self.ranks.on_main(save_model, folder, state, said)  # its last file marks the folder as whole

    def show_base(self, base: nn.Module) -> None:
        """Keep what the base samples, for comparison."""
        if self._decode is not None and not self.ranks.on_main((self._folder("base", 0) / "grid.npz").exists):
            self._show(base, "base", "base", 0)

    def grids(self) -> list[GridEntry]:
        """What was kept, in order of time; rank 0 alone."""
        found = [read_grid(folder, self.config.objective.objective) for folder in self.folder.glob("*")]
        return sorted((entry for grid in found for entry in grid), key=lambda entry: entry.images_seen)

    def _folder(self, name: str, images_seen: int) -> Path:
        return self.folder / f"{name}-{images_seen:012d}"

    def _show(self, net: nn.Module, name: str, kind: Kind, images_seen: int) -> None:
        options = self.config.eval
        sampler = self.model.sampler(net, options, guidance=None)
        places = {"batch_size": options.sample_batch, "ranks": self.ranks, "stop": self.stop}
        images = grid_samples(sampler, self.grid_seeds, self.grid_classes, self._decode, **places)
        self.ranks.on_main(self._write, name, kind, images_seen, images)

    def _write(self, name: str, kind: Kind, images_seen: int, images: Tensor) -> None:
        folder, shown = self._folder(name, images_seen), images.numpy()
        folder.mkdir(parents=True, exist_ok=True)
        unguided = self.model.family.unguided
        write_grid(folder, [GridEntry(name, kind, images_seen, unguided, None, shown)])
        picture = sheet(shown)
        write_png(folder / "grid.png", np.moveaxis(picture, 2, 0))
        if images_seen:
            self.watch.log.evaluated({"name": name, "images_seen": images_seen}, picture)

    @cached_property
    def _decode(self) -> Callable[[Tensor], Tensor] | None:
        try:
            called = self.config.init or "the network"
            return decoder_of(self._codec, self.config.eval.vae, self.ranks.device, called)
        except (RunError, ValueError, OSError, ModuleNotFoundError) as error:
            self.watch.say(f"note: milestones are kept without samples: {one_line(error)}")
            return None
