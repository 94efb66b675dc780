"""The run's noise-conditional classifier: the weights of weighted MCLR, and which samples are best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mclr_fast.config import ObjectiveConfig
from mclr_fast.data import Codec, Dataset
from mclr_fast.data.samples import encode
from mclr_fast.models.noisy_classifier import NoisyClassifier, train_noisy_classifier
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors
from mclr_fast.sampling.noise_level import NoiseLevel

SCORED_AT_ONCE = 500


def data_classifier(
    path: Path,
    options: ObjectiveConfig,
    dataset: Dataset,
    codec: Codec,
    noise: NoiseLevel,
    seed: int,
    ranks: Ranks,
) -> tuple[NoisyClassifier, dict[str, Any]]:
    """The classifier kept at `path`, trained on the data first if it is missing, and how good it is."""

    def train() -> None:
        net, quality = train_noisy_classifier(
            lambda index: encoded(dataset, codec, index, seed),
            dataset.labels,
            dataset.num_classes,
            noise,
            num_steps=options.classifier_steps,
            seed=seed,
            device=ranks.device,
        )
        save_tensors(path, {"net": net.state_dict()}, {"arguments": net.arguments, "quality": quality})

    if not ranks.on_main(path.exists):
        say(ranks.is_main, f"training the noise-conditional classifier: {path}")
        ranks.on_main(train)
    groups, meta = load_tensors(path)
    net = NoisyClassifier(**meta["arguments"])
    net.load_state_dict(groups["net"])
    quality = meta["quality"]
    say(
        ranks.is_main,
        f"classifier on {quality['heldout_images']:,} held-out images: accuracy {quality['accuracy']:.3f}, "
        f"calibration error {quality['ece_after']:.3f}",
    )
    return net.to(ranks.device).eval(), quality


def best_samples(
    classifier: NoisyClassifier,
    samples: Dataset,
    codec: Codec,
    share: float,
    sigma: float,
    seed: int,
    device: torch.device,
) -> np.ndarray:
    """Of every class's samples the share that the classifier finds likeliest of it, int64 indices.

    sigma: the noise level that the samples are taken to have, near the lowest it was trained at.
    """
    scores = []
    for first in range(0, len(samples), SCORED_AT_ONCE):
        index = np.arange(first, min(first + SCORED_AT_ONCE, len(samples)))
        x = encoded(samples, codec, index, seed).to(device)
        labels = torch.from_numpy(samples.labels[index])[:, None].to(device)
        ratio = classifier.ratio(x, torch.full((len(x),), sigma, device=device), labels)
        scores.append(ratio[:, 0].cpu().numpy())
    scores, chosen = np.concatenate(scores), []
    for c in np.unique(samples.labels):
        members = np.flatnonzero(samples.labels == c)
        best = np.argsort(-scores[members], kind="stable")[: max(round(share * len(members)), 1)]
        chosen.append(members[best])
    return np.sort(np.concatenate(chosen))


def encoded(dataset: Dataset, codec: Codec, index: np.ndarray, seed: int) -> Tensor:
    """Images in the network's range, float32 [m,*shape]; always the same sample of a latent."""
    return encode(dataset, codec, index[:, None], seed, torch.from_numpy(index))[:, 0]
