"""Own images: a base from nothing, and its fine-tuning; networks and numbers follow data and device."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.models.edm2.presets import PRESETS
from mclr_fast.models.edm2.sizes import network_of

if TYPE_CHECKING:
    from mclr_fast.data import Dataset

# Starting points: bases were tried from 300 to 3,000 images of 16 and 32 pixels, fine-tuning at 450, on CPUs.
CLASSIFIER = "classifier"
ENOUGH = 50  # images of the rarest class from which on a classifier can judge
# Evaluations a rank holds at once, by size; of EDM2's presets what fits 80 GB.
MICRO_BATCH = {"tiny": 256, "small": 256, "medium": 128}
PRESETS_MICRO_BATCH = 64
STEPS_OF_TUNING = (300, 512)  # fewest, and the EDM2 recipes'
LATENTS = dict(P_mean=-0.4, P_std=1.0)  # EDM2's, of its img512 presets
PIXELS = dict(P_mean=-0.8, P_std=1.6)  # EDM2's, of its img64 presets


@dataclass(frozen=True)
class Asked:
    """What of the command line these recipes follow; the options that it gives override what they choose."""

    data: str | None = None
    init: str | None = None
    size: str | None = None
    protocol: str | None = None
    device: str = "auto"

    @cached_property
    def facts(self) -> DataFacts | None:
        """Of --data; None without it. ValueError or OSError for what cannot be trained on."""
        if self.data is None:
            return None
        from mclr_fast.data import open_dataset

        return DataFacts.of(open_dataset(self.data))

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU, for all that is known here."""
        import torch

        return self.device.startswith("cuda") or (self.device == "auto" and torch.cuda.is_available())


@dataclass(frozen=True)
class DataFacts:
    """Attributes: num_images; shape, of what a network takes, (C, H, W); num_classes; rarest, how many images
    the smallest class has, of those that have any; is_pixels: no latents."""

    num_images: int
    shape: tuple[int, ...]
    num_classes: int
    rarest: int
    is_pixels: bool

    @classmethod
    def of(cls, dataset: Dataset) -> DataFacts:
        """ValueError for tokens."""
        from mclr_fast.models.codecs import codec_for

        if len(dataset.image_shape) == 1:
            raise ValueError(
                "the data are tokens, and recipes images-base and images train on pixels or latents: take "
                "--recipe var-d16 or another of VAR's, or prepare the images without --tokens."
            )
        shape = codec_for(dataset.image_shape).shape
        counts = Counter(dataset.labels.tolist())
        is_pixels = shape == tuple(dataset.image_shape)
        return cls(len(dataset), shape, max(counts) + 1, min(counts.values()), is_pixels)


def images_base(asked: Asked | None = None) -> RunConfig:
    """Train a base on your own images, from nothing; needs --data."""
    asked = asked or Asked()
    facts = asked.facts
    if facts is None:
        nothing = ObjectiveConfig(objective="denoising")
        return RunConfig(recipe="images-base", size=asked.size, objective=nothing)
    net = preset = size = None  # --init's, where it goes on with one
    if asked.init is None:
        size = asked.size or default_size(facts.num_images, asked.on_gpu)
        net, preset = network_of(size, facts.shape, facts.num_classes), PRESETS.get(size)
    batch_size = default_batch(facts.num_images)
    duration = base_duration(facts.num_images, batch_size, asked.on_gpu)
    return RunConfig(
        recipe="images-base",
        size=size,
        net=net,
        protocol=_protocol(asked, facts),
        objective=ObjectiveConfig(
            objective="denoising", label_dropout=0.1, **PIXELS if facts.is_pixels else LATENTS
        ),
        train=TrainConfig(
            duration=duration,
            batch_size=batch_size,
            micro_batch=MICRO_BATCH.get(size, PRESETS_MICRO_BATCH),
            lr=preset.ref_lr if preset else 0.01,
            dropout=preset.dropout if preset else 0.0,
            lr_schedule="edm2",
            warmup_images=min(duration // 20, 10_000_000),
            ref_batches=max(duration // batch_size // 15, 1),
            ema="power",
            ema_stds=(0.1,),
            checkpoint_every=duration // 16,
            log_every=duration // 256 // batch_size * batch_size,
        ),
        eval=_judged(asked, facts, duration // 4),
    )


def images(asked: Asked | None = None) -> RunConfig:
    """Fine-tune a base of your own images with MCLR; needs --data and --init (the run of images-base)."""
    asked = asked or Asked()
    facts = asked.facts
    objective = ObjectiveConfig(objective="mclr", num_negatives=3)
    if facts is None:
        return RunConfig(recipe="images", objective=objective)
    batch_size = default_batch(facts.num_images)
    duration = batch_size * tuning_steps(batch_size)
    noise = PIXELS if facts.is_pixels else LATENTS
    return RunConfig(
        recipe="images",
        protocol=_protocol(asked, facts),
        # Without denoising a small base's samples drift, all classes alike (docs/own-images.md).
        objective=ObjectiveConfig(objective="mclr", num_negatives=3, dsm_weight=10.0, **noise),
        train=TrainConfig(
            duration=duration,
            batch_size=batch_size,
            micro_batch=PRESETS_MICRO_BATCH,
            lr=5e-4,
            ema="plain",
            ema_beta=0.9,
            stop_factor=2.5,
            checkpoint_every=duration // 8,
            log_every=batch_size,
        ),
        eval=_judged(
            asked,
            facts,
            duration // 8,
            control="last",
            cfg_scales=(1.1, 1.25, 1.5, 2.0) if asked.on_gpu else (1.25, 1.5),
            best_cfg_scales=(1.1, 1.25) if asked.on_gpu else (),
            dial=(0.5, 0.75, 1.25) if asked.on_gpu else (),
            patience=6,  # of 500 samples FD moves by a tenth between evaluations
        ),
    )


def default_size(num_images: int, on_gpu: bool) -> str:
    """A CPU trains tiny networks; a GPU small ones, from 20,000 images on medium ones.

    Larger ones, EDM2's presets, are for whoever has a node and asks for them.
    """
    if not on_gpu:
        return "tiny"
    return "small" if num_images < 20_000 else "medium"


def default_batch(num_images: int) -> int:
    """N: the power of two nearest 2 sqrt(images), from 32 to EDM2's 2,048: 64 of 1,000, 512 of 100,000."""
    return 2 ** min(max(round(math.log2(2 * math.sqrt(num_images))), 5), 11)


def base_duration(num_images: int, batch_size: int, on_gpu: bool) -> int:
    """Images seen: 262,144 sqrt(images / 1,000), on a GPU 8 times as many, at most 1,000 of each image.

    From 65,536 on a CPU; in whole steps. So 1,000 images are seen 262 times on a CPU; a million 66 on a GPU.
    """
    seen = 2**18 * math.sqrt(num_images / 1000) * (8 if on_gpu else 1)
    return max(round(max(min(seen, 1000 * num_images), 2**16) / batch_size), 1) * batch_size


def tuning_steps(batch_size: int) -> int:
    """Steps of fine-tuning: a quarter of the batch size, from 300 to 512."""
    fewest, most = STEPS_OF_TUNING
    return min(max(batch_size // 4, fewest), most)


def _protocol(asked: Asked, facts: DataFacts) -> str | None:
    """Who judges: whom the user names, else the classifier where it can learn the classes, else nobody."""
    if asked.protocol is not None:
        return asked.protocol
    from mclr_fast.evaluation.parts import MAX_CLASSES

    can = facts.is_pixels and facts.num_classes > 1 and facts.rarest >= ENOUGH
    return CLASSIFIER if can and facts.num_classes <= MAX_CLASSES else None


def _judged(asked: Asked, facts: DataFacts, every: int, **compared) -> EvalConfig:
    """How often, on how many samples; nothing is compared where nobody judges."""
    sampler = dict(num_steps=18, sample_batch=250 if facts.shape[1] <= 64 else 64)
    if _protocol(asked, facts) is None:
        return EvalConfig(**sampler)
    num_samples = 5000 if asked.on_gpu else 500
    return EvalConfig(eval_every=every, num_samples=num_samples, **sampler, **compared)
