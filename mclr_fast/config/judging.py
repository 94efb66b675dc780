"""How samples are judged: in runs, and by the door `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .sampling import SampleConfig, SamplerConfig

Hidden = tyro.conf.Suppress


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """What samples are judged against, and the networks that see them."""

    ref: tuple[str, ...] = ()
    """What to compare with: data sets or statistics (EDM2's .pkl, .npz); the first that serves is taken."""
    heldout: str | None = None
    """Data set of real images that were not trained on, for a row of their own; mnist16 has some, classifier
    holds out a tenth of the data."""
    best_by: str | None = None
    """Protocol whose FD counts: it chooses a run's best model; default: the first that measures FD."""
    inception_weights: Path | None = None
    """torch-fidelity's weights-inception-2015-12-05-6726825d.pth; default: where torch keeps it."""
    dinov2_weights: Path | None = None
    """DINOv2's dinov2_vitl14_pretrain.pth; default: where torch keeps it."""
    download: bool = False
    """Download the weights from where they are published, if they are not there."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(SamplerConfig, JudgeConfig):
    """How it is judged."""

    eval_every: int = 0
    """Images between evaluations; 0 = no evaluation."""
    num_samples: Annotated[int, tyro.conf.arg(aliases=["--eval-samples"])] = 1000
    """Samples an evaluation draws."""
    final_samples: int = 0
    """Samples of the final rows, of the seeds after those: base, control and best again; 0 = none."""
    first_seed: int = 0
    """Their sampling seeds are first_seed, first_seed + 1, ..., the same for every row."""
    neighbors: int = 3
    """mnist16: k, the neighbours of precision and recall; other protocols have their own."""
    vae: str | None = None
    """Decoder of latents: a folder of diffusers', or stabilityai/sd-vae-ft-mse, EDM2's."""
    gnet: str | None = None
    """Network that guides; default: each guides itself, if it was trained without a label too."""
    best_cfg_scales: tuple[float, ...] = ()
    """Guidance strengths of the best model's rows under guidance (section 6.2)."""
    dial: tuple[float, ...] = ()
    """Strengths between --init (0) and the best model (1), and beyond, of the dial's rows."""
    control: Literal["none", "last", "all"] = "none"
    """Train the base on with the denoising loss for as many images; evaluate it at the end, or as often."""
    cfg_scales: tuple[float, ...] = ()
    """Guidance strengths of the CFG rows (EDM2's g, 1 = none)."""
    recompute_cfg: bool = False
    """Make the CFG rows again instead of taking the shipped base's stored ones."""
    grid_noises: int = 2
    """Initial noises of the same-noise grid."""
    patience: int = 0
    """Stop after so many evaluations without a better FD; 0 = never."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SampleConfig, JudgeConfig):
    """Options of `python -m mclr_fast.evaluate`; a model is sampled by those of `sample`."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")] = ""
    """Model, as `sample` takes it; none with --images."""
    images: Path | None = None
    """Images to judge instead of a model's: a folder, a zip, or an .npz with arr_0; all of them."""
    protocol: str | None = None
    """fid,fd-dinov2,is,pr-inception,pr-dinov2,kid,adm, some of them; paper = fd-dinov2,pr-inception,is.
    classifier: one that is trained on --ref's labelled images. Default: what its run was judged by, else
    mnist16."""
    data: str | None = None
    """Data set of real images to compare with, after --ref; mnist16 knows its own."""
    stats_out: Path | None = None
    """Judge nothing; write --images' statistics as a reference: EDM2's .pkl, or EDM's .npz (fid alone)."""
    num_samples: int | None = None
    """Samples an evaluation draws; default: its run's, else 1,000 for mnist16, 50,000 for other protocols."""
    first_seed: int | None = None
    """Their sampling seeds are first_seed, first_seed + 1, ...; default: its run's, else 0."""
    repeats: int = 1
    """Evaluations, each of the seeds after the last one's; all are printed, their mean and minimum too."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    """What the network computes in; default: what it did in its run, else auto: bf16 where that is native."""
    neighbors: int | None = None
    """mnist16: k, the neighbours of precision and recall (default 3); other protocols have their own."""
    seeds: Hidden[str] = ""
    outdir: Hidden[Path] = Path()
    subdirs: Hidden[bool] = False
    grid: Hidden[bool] = False
