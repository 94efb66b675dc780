"""The frozen reference's energies of the data's images under their own labels: made once, kept in a file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mclr_fast.config import RunConfig, TrainConfig
from mclr_fast.data import Codec, Dataset
from mclr_fast.data.samples import encode, to_device
from mclr_fast.models.family import Family, Frozen
from mclr_fast.models.rows import Rows
from mclr_fast.models.storage.files import identity
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.stages import progress_bar
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors

from .registry import Method

UNCOMPARED = ("read", "times")  # of a data set's identity: how it was looked at


def keeps_own_energies(config: RunConfig, method: Method, family: Family, num_images: int) -> bool:
    """Whether the reference meets an image under its own label twice, and alike both times.

    num_images: of the data.
    """
    train = config.train
    is_fixed = family.fixed_energies and train.dropout == 0 and not train.flip
    images = min(train.duration, config.objective.refresh_every or train.duration)
    return method.needs_reference and method.positives_are_own and is_fixed and images > num_images


def images_at_once(train: TrainConfig, num_ranks: int) -> int:
    """Of a rank, while they are made: no more evaluations than a micro-batch has."""
    return train.micro_batch or -(-train.batch_size // num_ranks)


def own_energies(
    folder: Path,
    reference: Frozen,
    reference_path: str,
    dataset: Dataset,
    codec: Codec,
    batch_size: int,
    ranks: Ranks,
    stop: StopRequest,
) -> Tensor:
    """float32 [len(dataset)], on the CPU of every rank; of a family whose energies are fixed.

    The file's name has a digest of the reference, the data and what is computed in: of others there is
    another. Ranks share the work; Interrupted after a signal, and then it begins anew.
    """
    dtype = reference.family.dtype(reference.net)
    said = [
        ranks.on_main(identity, reference_path),
        {name: value for name, value in dataset.identity.items() if name not in UNCOMPARED},
        str(dtype),
        ranks.device.type,
    ]
    key = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = folder / f"reference-energies-{key}.safetensors"
    if not ranks.on_main(path.exists):
        say(ranks.is_main, f"the reference's energies of {len(dataset):,} images, once: {path}")
        made = _made(reference, dataset, codec, batch_size, ranks, stop)
        ranks.on_main(save_tensors, path, {"energies": {"own": made}})
    groups, _ = load_tensors(path)
    return groups["energies"]["own"]


def _made(
    reference: Frozen, dataset: Dataset, codec: Codec, batch_size: int, ranks: Ranks, stop: StopRequest
) -> Tensor:
    parts = []
    with progress_bar("reference", len(dataset), 0, ranks.is_main) as bar:
        for places, own in ranks.rounds(len(dataset), batch_size):
            stop.check()
            energy = _energies(reference, dataset, codec, np.array(own), ranks.device) if own else []
            parts += ranks.gather(np.asarray(energy, dtype=np.float32))
            bar.update(len(places))
    return torch.from_numpy(np.concatenate(parts))


def _energies(
    reference: Frozen, dataset: Dataset, codec: Codec, index: np.ndarray, device: torch.device
) -> np.ndarray:
    """Of these images, float32 [m]."""
    position = torch.from_numpy(index)
    labels = to_device(torch.from_numpy(dataset.labels[index])[:, None], device)
    rows = Rows(
        x=encode(dataset, codec, index[:, None], 0, position, device=device)[:, 0],
        labels=labels,
        shared=True,
        law={},
        position=position.to(device),
        seed=0,
        scale=torch.ones((), device=device),
        columns=torch.zeros(1, dtype=torch.int64, device=device),
        num_columns=1,
    )
    inputs = reference.family.inputs(reference.net, rows)
    return reference.energies(inputs, labels)[:, 0].float().cpu().numpy()
