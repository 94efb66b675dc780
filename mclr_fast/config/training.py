"""What is minimised, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Objective = Literal[
    "mclr",
    "kl-mclr",
    "weighted-mclr",
    "plus-minus",
    "ccdpo",
    "cca",
    "ddo",
    "gft",
    "model-guidance",
    "denoising",
]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised."""

    objective: Objective = "mclr"
    """What is trained with; the options below say whose they are. denoising: EDM2's own loss, for bases."""
    num_negatives: int = 3
    """K, negatives an image; 1 = the paper's Approach 1."""
    dsm_weight: float = 0.0
    """mclr: beta of eq. 160, the share of denoising, at least 0."""
    form: Literal[1, 2] = 1
    """mclr: negatives are 1 = wrong labels (eq. 22), 2 = other images (eq. 12)."""
    include_own: bool = False
    """mclr, kl-mclr, ccdpo, cca: negatives of all labels, the own too; weighted-mclr always does."""
    beta: float | None = None
    """ccdpo, cca, ddo: pull to the reference, 1/energy (default 0.02). gft: 1/guidance (default 0.5)."""
    lambda_coef: float = 1.0
    """cca: weight of the negatives, above 0."""
    alpha: float = 1.0
    """ddo: weight of the model's samples, above 0."""
    eta: float = 1.0
    """kl-mclr, weighted-mclr, plus-minus: strength of the contrast, at least 0."""
    guidance_weight: float = 0.5
    """model-guidance: w, the target's shift, in [0, 1); guidance is 1 / (1 - w)."""
    pairing: Literal["images", "labels"] = "images"
    """cca: negatives are other images under the label, or other labels on the image."""
    reference: str | None = None
    """ccdpo, cca, ddo compare with it; its samples serve ddo, kl-mclr, plus-minus; default --init."""
    refresh_every: int = 0
    """Those with --reference: images until the average replaces it, and its samples; 0 = never."""
    negatives: Path | None = None
    """ddo, kl-mclr, plus-minus: samples to use, an EDM2 zip or folder; a missing .zip is made."""
    negatives_model: str | None = None
    """ddo, kl-mclr, plus-minus: model that makes them (autoguidance: an early one); default --reference."""
    positives: str = "data"
    """plus-minus: p+ is "data", "base" (--reference's samples), "best" (of those: CFGRL) or a path."""
    best_share: float = 0.25
    """plus-minus: the share of a class's samples that is "best", in (0, 1]."""
    model_samples: int = 2000
    """ddo, kl-mclr, plus-minus: samples that are made of a model, as many of each class."""
    classifier_steps: int = 1000
    """weighted-mclr, positives "best": training steps of the noise-conditional classifier."""
    classifier: Path | None = None
    """weighted-mclr, positives "best": the classifier's file, made if missing; default: in --outdir."""
    label_dropout: float | None = None
    """gft, model-guidance, denoising, cca: probability of no label, in [0, 1) (default 0.1, 0.1, 0, 0)."""
    P_mean: float = -0.8
    """Mean of ln sigma."""
    P_std: float = 1.6
    """Standard deviation of ln sigma."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How it is minimised."""

    duration: int = 2048 * 1000
    """Length of the run, in images seen."""
    batch_size: int = 2048
    """N, images a step over all ranks."""
    sharding: Literal["auto", "replicate", "shard"] = "auto"
    """Keep parameters, moments and averages whole on every rank, or split (FSDP2); auto splits from 1B on."""
    micro_batch: int = 0
    """Network evaluations a rank holds at once; 0 = all of a step's."""
    lr: float = 1e-4
    """Learning rate, at least 0 (EDM2's alpha_ref with the edm2 schedule)."""
    lr_schedule: Literal["hold", "edm2"] = "hold"
    """hold: warm up, then constant. edm2: eq. 67, decaying."""
    warmup_images: int = 0
    """Length of the learning rate's warm-up, in images."""
    ref_batches: float = 70000
    """edm2 schedule: steps before the decay sets in."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's decays a step, each in [0, 1)."""
    ema: Literal["plain", "power"] = "plain"
    """Weight average: same decay every step, or EDM2's power function."""
    ema_beta: float = 0.9
    """plain: decay a step, in [0, 1]."""
    ema_stds: tuple[float, ...] = (0.05, 0.1)
    """power: relative widths, each in (0, 0.2886]; the first is evaluated and saved."""
    ema_snapshot_every: int = 0
    """power: images between snapshots of every average, 4 bytes a parameter each; 0 = none."""
    dropout: float = 0.0
    """Dropout probability of the network, in [0, 1)."""
    flip: bool = False
    """Mirror every other image, at random. Latents are mirrored before they are made: prepare --mirror."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the U-Net computes in; auto = bf16 where the processor has it. fp16: the loss is scaled."""
    deterministic: bool = False
    """Reproducible kernels alone: the same run on the same GPU gives the same weights to the bit."""
    optimizer: Literal["adam-norm-ema", "torch-adam", "apex"] = "adam-norm-ema"
    """Who computes Adam: one pass for it, averages and normalisation; torch; NVIDIA apex's FusedAdam."""
    stop_factor: float = 0.0
    """Stop when the mean energy, or its gap, is this many times its start; 0 = never."""
    milestone_every: int | None = None
    """Images between models and sample grids that are kept; 0 = none; default: 8 in runs without metrics."""
    checkpoint_every: int = 0
    """Images between saves of the state; 0 = at evaluations and at the end."""
    keep_checkpoints: int = 2
    """States kept: so many of the newest, and the one of the best evaluation."""
    skip_bad_batches: int = 0
    """Minibatches that may be left out because their loss or gradients are not finite; then stop."""
    log_every: int = 0
    """Images between lines of log.jsonl; 0 = every step."""
