"""Everything a run can be told, with units. A recipe is a function returning one `RunConfig`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

Hidden = tyro.conf.Suppress
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
    """gft, model-guidance, denoising: probability of no label, in [0, 1) (default 0.1, 0.1, 0)."""
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
    optimizer: Literal["adam-norm-ema", "torch-adam", "apex"] = "adam-norm-ema"
    """Who computes Adam: one pass for it, averages and normalisation; torch; NVIDIA apex's FusedAdam."""
    stop_factor: float = 0.0
    """Stop when the mean energy, or its gap, is this many times its start; 0 = never."""
    checkpoint_every: int = 0
    """Images between saves of the state; 0 = at evaluations and at the end."""
    keep_checkpoints: int = 2
    """States kept: so many of the newest, and the one of the best evaluation."""
    skip_bad_batches: int = 0
    """Minibatches that may be left out because their loss or gradients are not finite; then stop."""
    log_every: int = 0
    """Images between lines of log.jsonl; 0 = every step."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """EDM's Heun sampler; what runs never vary is constant."""

    rho: ClassVar[float] = 7.0
    S_churn: ClassVar[float] = 0.0
    S_min: ClassVar[float] = 0.0
    S_max: ClassVar[float] = math.inf
    S_noise: ClassVar[float] = 1.0
    guidance_interval: ClassVar[tuple[float, float] | None] = None
    cuda_graphs: ClassVar[Literal["on", "off"]] = "on"

    num_steps: int = 12
    """Heun steps: a sample costs 2 num_steps - 1 network calls."""
    sigma_min: float = 0.002
    """Lowest noise level of the sampler; pixels lie in [-1, 1]."""
    sigma_max: float = 80.0
    """Highest noise level of the sampler; pixels lie in [-1, 1]."""
    sample_batch: int = 250
    """Images sampled at once on a rank."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """What samples are judged against, and the networks that see them."""

    ref: tuple[str, ...] = ()
    """What to compare with: data sets or statistics (EDM2's .pkl, .npz); the first that serves is taken."""
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
    best_by: str | None = None
    """Protocol whose FD chooses the best model; default: the first that measures FD."""
    heldout: str | None = None
    """Data set of real images that were not trained on, for a row of their own; mnist16 has some."""
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
class RunConfig:
    """One complete run."""

    recipe: Hidden[str]
    outdir: Path | None = None
    """Where the run writes; default runs/<recipe>. An unfinished run there is resumed."""
    seed: int = 0
    """Seed of everything drawn while training."""
    data: str | None = None
    """"mnist16" (embedded), or an EDM2 zip or folder, or a folder that holds one of images a class."""
    loader: Literal["auto", "plain", "dali"] = "auto"
    """What decodes --data: PIL in threads, or NVIDIA DALI; auto = DALI for PNG where it is installed."""
    loader_threads: int = 0
    """Threads of a rank's loader; 0 = its share of the cores, at most 16."""
    init: str | None = None
    """Model to start from: a folder of ours, EDM2's .pkl or its https address, or a published name."""
    protocol: str | None = None
    """What judges: mnist16 (the embedded digits alone), or fid, fd-dinov2, is, ... as in `evaluate`."""
    family: Hidden[str] = "edm2"
    net: Hidden[dict[str, Any] | None] = None
    note: Hidden[str] = ""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    proof_seeds: tuple[int, ...] = ()
    """Repeat the run with these seeds and judge each on fresh samples; empty = one run."""
    table: Hidden[dict[str, Any] | None] = None
    table_minutes: float = 0.0
    """table: minutes after which no further run is begun; the same command goes on. 0 = to the end."""
    proof_samples: int = 2000
    """proof: samples of the final judgement."""
    proof_first_seed: int = 2_000_000
    """proof: their first sampling seed; none of them chose the checkpoint."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = cuda where there is one."""
    tensorboard: bool = False
    """Write TensorBoard's files too, to <outdir>/tensorboard."""
    wandb: str | None = None
    """Weights & Biases project to log to as well; a run that is resumed goes on in its run there."""
    dry_run: bool = False
    """Print the resolved run and the memory that it needs, and stop; an error if a GPU has less."""
    gpu_memory_gib: float = 0.0
    """dry_run: a GPU's memory, in GiB; 0 = that of the GPU here, or 80."""
    gpu_tflops: float = 400.0
    """dry_run: TFLOP/s that a GPU makes; one H200 made 428, 256 evaluations a step (benchmarks-gpu.md)."""

    @property
    def folder(self) -> Path:
        """Where the run writes: --outdir, or runs/<recipe>."""
        return self.outdir or Path("runs") / self.recipe


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
    """Classes, used in turn, like 3 or 0-9; default: the model's way, drawn by seed or all in turn."""
    balance: bool = False
    """All classes (or --labels) in turn, each as often as any other."""
    guidance: float = 1.0
    """EDM2's guidance g against the net's own zero label vector; 1 = none. Or against --gnet."""
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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = cuda where there is one."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SampleConfig, JudgeConfig):
    """Options of `python -m mclr_fast.evaluate`; a model is sampled by those of `sample`."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")] = ""
    """Model, as `sample` takes it; none with --images."""
    images: Path | None = None
    """Images to judge instead of a model's: a folder, a zip, or an .npz with arr_0; all of them."""
    protocol: str | None = None
    """fid,fd-dinov2,is,pr-inception,pr-dinov2,kid,adm, some of them; paper = fd-dinov2,pr-inception,is.
    Default: what its run was judged by, else mnist16."""
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
    best_by: str | None = None
    """Protocol whose FD stands first in the row; default: the first that measures FD."""
    neighbors: int | None = None
    """mnist16: k, the neighbours of precision and recall (default 3); other protocols have their own."""
    seeds: Hidden[str] = ""
    outdir: Hidden[Path] = Path()
    subdirs: Hidden[bool] = False
    grid: Hidden[bool] = False


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Options of `python -m mclr_fast.convert`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """Model folder or name, or a file or its https address: EDM2's .pkl, .pt, DDO's .pkl, VAR's .pth."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """Folder or file to write."""
    to: Literal["folder", "edm2-pkl", "edm2-state-dict", "edm2-training-state", "var-pth"] = "folder"
    """folder = model.safetensors and config.json; edm2-*, var-pth = a file that their code reads."""
    template: Path | None = None
    """edm2-pkl: your own EDM2 snapshot, of the same architecture, whose weights are replaced. folder, of an
    EDM2 state: a snapshot or model folder of the same network, for what a state does not say of it."""
    ema: float | None = None
    """folder, of a training state: the average of this std, in (0, 0.2886], not the trained weights."""
    part: str | None = None
    """folder, of a file that holds several networks: the key that the network is under, such as ema."""
    noise_level: tuple[float, float] | None = None
    """edm2-training-state: mean and standard deviation of ln sigma, the latter above 0, that EDM2's own loss
    will train with; default: those of the preset of the model's size, else its own, -0.4 and 1."""
    licence: str | None = None
    """folder: licence of the weights; default CC BY-NC-SA 4.0 for NVIDIA's files, by name, else unknown."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Options of `python -m mclr_fast.prepare`."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder, .zip or .tar (.tgz, ...) of labelled images."""
    out: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="OUT")] = None
    """EDM2 data set to write, a .zip."""
    resolution: int = 64
    """Side of the images, in pixels: center-crop-dhariwal."""
    latents: str | None = None
    """Encode with this VAE: a folder of diffusers', or stabilityai/sd-vae-ft-mse, EDM2's."""
    mirror: bool = False
    """Append the mirror image of every image."""
    exif_rotation: bool = False
    """Turn photographs as their EXIF orientation says; EDM2's tool does not."""
    within: str | None = None
    """Read this folder of SOURCE alone, such as pets/train."""
    class_level: int | None = None
    """Depth of the folders that are the classes, 1 = the outermost; found out where it shows."""
    skip_damaged: bool = False
    """Leave out images that cannot be read."""
    verify: bool = False
    """Read every image of OUT, or of SOURCE if nothing is to be written."""
    threads: int = 0
    """Threads that read; 0 = one a core, at most 16."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of the VAE; auto = cuda where there is one."""
