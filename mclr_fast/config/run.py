"""One complete run; a recipe is a function returning one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .judging import EvalConfig
from .training import ObjectiveConfig, TrainConfig

Hidden = tyro.conf.Suppress


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One complete run."""

    recipe: str
    """Recipe, one of those above: the defaults shown here are its own."""
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
    """Model to start from: a folder of ours, hf:USER/NAME[@REVISION], EDM2's .pkl, its address or name."""
    protocol: str | None = None
    """What judges: mnist16 (the embedded digits alone), classifier (trained on labelled --data), or fid,
    fd-dinov2, is, ... as in `evaluate`."""
    family: Hidden[str] = "edm2"
    net: Annotated[Hidden[dict[str, Any] | None], tyro.conf.arg(name="net-arguments")] = None
    size: str | None = None
    """images-base: tiny, small, medium, or an EDM2 preset's name; default: by the data and the device."""
    net_options: Annotated[tuple[str, ...], tyro.conf.arg(name="net", metavar="NAME=VALUE ...")] = ()
    """A new network's arguments, such as model_channels=32 channel_mult=1,2,2; --init's are its own."""
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
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 = that GPU; auto = cuda where there is one."""
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

    @property
    def is_judged(self) -> bool:
        """Whether rows are measured: there is a protocol, and a time for it."""
        return self.protocol is not None and self.eval.eval_every > 0
