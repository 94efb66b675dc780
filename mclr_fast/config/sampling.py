"""How samples are made: by runs, and by the door `sample`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """EDM's Heun sampler; what runs never vary is constant."""

    rho: ClassVar[float] = 7.0
    S_churn: ClassVar[float] = 0.0
    S_min: ClassVar[float] = 0.0
    S_max: ClassVar[float] = math.inf
    S_noise: ClassVar[float] = 1.0
    guidance_interval: ClassVar[tuple[float, float] | None] = None
    more_smooth: ClassVar[bool] = False

    num_steps: int = 12
    """Heun steps: a sample costs 2 num_steps - 1 network calls."""
    sigma_min: float = 0.002
    """Lowest noise level of the sampler; pixels lie in [-1, 1]."""
    sigma_max: float = 80.0
    """Highest noise level of the sampler; pixels lie in [-1, 1]."""
    top_k: int | None = None
    """VAR: tokens are drawn of the so many likeliest; 0 = of all; default: the model's."""
    top_p: float | None = None
    """VAR: tokens are drawn of the likeliest that make up so much of the probability; 0 = of all."""
    sample_batch: int = 250
    """Images sampled at once on a rank."""
    cuda_graphs: Literal["on", "off"] = "on"
    """On a GPU, a batch's calls and a micro-batch as one CUDA graph each; off = kernel by kernel."""

    @property
    def numbers(self) -> dict[str, float]:
        """Those that a sample depends on, as runs vary them."""
        names = ("num_steps", "sigma_min", "sigma_max", "top_k", "top_p")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class HeunConfig(SamplerConfig):
    """EDM's Heun sampler with all its options; for what is None the model has a number of its own."""

    num_steps: int | None = None
    """Heun steps: a sample costs 2 num_steps - 1 network calls; default: the model's."""
    sigma_min: float | None = None
    """Lowest noise level of the sampler; pixels lie in [-1, 1]; default: the model's."""
    sigma_max: float | None = None
    """Highest noise level of the sampler; pixels lie in [-1, 1]; default: the model's."""
    rho: float | None = None
    """Exponent that spaces the noise levels, above 0; default: the model's."""
    S_churn: float = 0.0
    """Noise added on the way, at least 0, spread over the steps; 0 = none. A seed has its own."""
    S_min: float = 0.0
    """Lowest noise level at which noise is added."""
    S_max: float = math.inf
    """Highest noise level at which noise is added."""
    S_noise: float = 1.0
    """Factor on the added noise, above 0."""
    guidance_interval: tuple[float, float] | None = None
    """Noise levels between which guidance acts, LO HI; default: all."""
    more_smooth: bool = False
    """VAR: tokens are mixtures of codebook entries (its more_smooth): for looking at, not for scores."""
    cuda_graphs: Literal["on", "off"] = "on"
    """On a GPU, all calls of a batch as one CUDA graph; off = launched kernel by kernel. A CPU has none."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig(HeunConfig):
    """Options of `python -m mclr_fast.sample`."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model folder, run's folder (its best model), EDM2's .pkl or its https address, or a published name."""
    seeds: str = "0-15"
    """Sampling seeds, like 0-15 or 1,2,5-10; one that is named twice is sampled once."""
    labels: str = ""
    """Classes, used in turn, like 3, 0-9 or cat,dog; default: the model's way, by seed or all in turn."""
    balance: bool = False
    """All classes (or --labels) in turn, each as often as any other."""
    guidance: float | None = None
    """EDM2's guidance g against the net's own zero label vector; 1 = none; or --gnet. VAR's t: 0 = none."""
    gnet: str | None = None
    """Model that guides: a weaker one (autoguidance), or one without classes."""
    strength: float | None = None
    """Strength of fine-tuning, in [0, 2]: 0 = --base, 1 = MODEL, by weights between and beyond them."""
    base: str | None = None
    """--strength: model that MODEL was fine-tuned from; default: what its config.json says."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the U-Net computes in; auto = bf16 where the processor has it."""
    vae: str | None = None
    """Decoder of latents: a folder of diffusers', or stabilityai/sd-vae-ft-mse, EDM2's."""
    outdir: Annotated[Path, tyro.conf.arg(aliases=["--out"])] = Path("samples")
    """Folder of PNG files; or .zip, an EDM2 data set; or .npz, as ADM's evaluator takes it."""
    subdirs: bool = False
    """PNG files in a folder for every 1,000 seeds, as EDM2 has them."""
    grid: bool = False
    """Contact sheet of the first 100 images too, beside --outdir: <outdir>-grid.png."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 = that GPU; auto = cuda where there is one."""
