"""Snapshots of a run's averages, as models, and EDM2's post-hoc reconstruction of others from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from mclr_fast.models import model_from_config, read_config, save_model
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.tensor_files import open_tensors

from .posthoc import posthoc_coefficients, posthoc_error
from .trainer import Trainer

FOLDER = "snapshots"


class Snapshots:
    """Keeps every average of a trainer, as models in float32.

    Fine-tuning moves weights by little more than float16's rounding.
    """

    def __init__(self, trainer: Trainer, folder: Path, model: dict[str, Any]):
        """folder: of the run; model: what the networks' config.json says."""
        self.trainer, self.folder, self.model = trainer, folder / FOLDER, model

    def keep(self) -> None:
        """Write the averages as they are now, if they are not there; all ranks call it."""
        images_seen, ranks = self.trainer.images_seen, self.trainer.ranks
        for label, std in zip(self.trainer.ema.weights(), self.trainer.ema.stds, strict=True):
            path = self.folder / f"{self.trainer.arm}-{images_seen:012d}-{label}"
            if not ranks.on_main((path / "model.safetensors").exists):
                said = self.model | {"images_seen": images_seen, "ema_std": std}
                ranks.on_main(save_model, path, self.trainer.average_state(label), said)


@dataclass(frozen=True)
class Snapshot:
    """One kept average: where, after how many images, and its relative width."""

    path: Path
    images_seen: int
    std: float


def find_snapshots(run: Path) -> list[Snapshot]:
    """The snapshots of a run's folder, in order of time. RunError when there are none."""
    found = []
    for file in sorted((run / FOLDER).glob("*/model.safetensors")):  # written last: so the others are whole
        try:
            said = read_config(file.parent)
            found.append(Snapshot(file.parent, int(said["images_seen"]), float(said["ema_std"])))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(f"{file.parent} is not a snapshot of ours ({error}). Move it away.") from None
    if not found:
        raise RunError(
            f"{run} holds no snapshots of averages: train it with --ema power --ema-snapshot-every IMAGES, "
            "in a folder of its own."
        )
    return sorted(found, key=lambda snapshot: (snapshot.images_seen, snapshot.std))


def reconstruct(
    snapshots: Sequence[Snapshot], std: float, images_seen: int, copied: Collection[str]
) -> tuple[dict[str, Tensor], float]:
    """The average of relative width std after images_seen, as tensors, and its profile's relative error.

    Tensors are summed in float64 and have the first snapshot's dtype; those named in `copied` are the last
    one's. Errors: RunError for files that are damaged or not of one network.
    Source    EDM2 (arXiv 2312.02696), algorithm 3.
    """
    times, stds = ([getattr(s, name) for s in snapshots] for name in ("images_seen", "std"))
    coefficients = posthoc_coefficients(times, stds, images_seen, std)[:, 0]
    state = {}
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(open_tensors(s.path / "model.safetensors")) for s in snapshots]
            for name in files[0].keys():  # noqa: SIM118
                first = files[0].get_tensor(name)
                total = torch.zeros(first.shape, dtype=torch.float64)
                for coefficient, file in zip(coefficients, files, strict=True):
                    total += float(coefficient) * file.get_tensor(name)
                state[name] = files[-1].get_tensor(name) if name in copied else total.to(first.dtype)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(f"the snapshots in {snapshots[0].path.parent} do not go together: {error}.") from error
    return state, posthoc_error(times, stds, images_seen, std, coefficients)


def write_reconstructions(
    run: Path, stds: Sequence[float], out: Path, images: int | None
) -> list[tuple[Path, float]]:
    """Write the model OUT/<std> for each std; returns each one's folder and its profile's relative error.

    images: when the averages end; None = the last snapshot. RunError for what cannot be reconstructed.
    """
    snapshots = find_snapshots(run)
    last = snapshots[-1].images_seen
    images_seen = last if images is None else images
    if not 0 < images_seen <= last:
        raise RunError(f"--images must be above 0 and at most {last:,}, the last snapshot's, not {images:,}.")
    labels = [f"{std:.3f}" for std in stds]
    if not labels or len(set(labels)) < len(labels):
        raise RunError(f"--std must be given, and once for a width to three decimals; got {list(stds)}.")
    said = read_config(snapshots[-1].path)
    with torch.device("meta"):
        buffers = [name for name, _ in model_from_config(said).named_buffers()]
    written = []
    for std, label in zip(stds, labels, strict=True):
        try:
            state, error = reconstruct(snapshots, std, images_seen, buffers)
        except (ValueError, np.linalg.LinAlgError) as problem:
            raise RunError(f"--std {std:g}: {problem}") from None
        made = {"images_seen": images_seen, "ema_std": std, "reconstructed_from": len(snapshots)}
        save_model(out / label, state, said | made)
        written.append((out / label, error))
    return written
