"""Options of the doors that write files: `convert` and `prepare`; and of `share`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Options of `python -m mclr_fast.convert`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """Model folder, name, hf:USER/NAME; a file or its https address: EDM2's .pkl, .pt, DDO's, VAR's .pth."""
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
    """Folder, .zip or .tar (.tgz, ...) of labelled images, or of MNIST's idx files; or one of those."""
    out: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="OUT")] = None
    """EDM2 data set to write, a .zip."""
    resolution: int = 64
    """Side of the images, in pixels: center-crop-dhariwal."""
    pad: bool = False
    """Put black around images up to that side instead of cropping and resizing them: 28 pixels to 32."""
    grey: bool = False
    """Write one channel, not three."""
    class_names: str | None = None
    """Names of the classes by number, as a,b,c; default: as SOURCE has them. idx files hold none."""
    latents: str | None = None
    """Encode with this VAE: a folder of diffusers', or stabilityai/sd-vae-ft-mse, EDM2's."""
    tokens: str | None = None
    """Encode to the tokens of this VAR, by its VQVAE: a folder of ours, a .pth, or a published name."""
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
    device: str = "auto"
    """Of the VAE or VQVAE; auto, cpu, cuda, or cuda:1 = that GPU; auto = cuda where there is one."""


@dataclass(frozen=True, kw_only=True)
class ShareConfig:
    """Options of `python -m mclr_fast.share`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Model folder, or a run's, of which the best model is meant."""
    to: str
    """hf:USER/NAME, the repository on the Hugging Face hub; made where there is none."""
    private: bool = False
    """Make the repository private; refused for one that is there and public."""
    with_report: bool = False
    """Add the run's report.html and figures, as they are: they name the run's command and paths."""
    licence: str | None = None
    """Licence of the weights, where config.json knows none; another than it says is refused."""
    dry_run: bool = False
    """Print what would be uploaded, and stop: no network, no token."""
