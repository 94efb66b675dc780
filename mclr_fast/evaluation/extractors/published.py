"""The networks that protocols see images with, and where their published weights are looked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclr_fast.pickles import reading
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256
from mclr_fast.runtime.remote.downloads import fetch, place_of

from . import digits
from .dinov2 import DINOv2


@dataclass(frozen=True)
class Extractor:
    """A network that sees images.

    Attributes:
        name: of `MAKERS`; num_features D; resize: what it does to images first, in words.
        see: uint8 [B,channels,H,W] -> features [B,D], and logits [B,M] (None where it has none), float32.
        weights: SHA-256 of the file of its weights.
        channels: what it sees, 3 = RGB; image_shape: the only (C, H, W) that it sees, None for any size.
        about: what else a row's reader should know of it; class_names, where it was trained on named classes.
        max_features: images of a reference that precision, recall and KID compare with; None: the usual.
    """

    name: str
    num_features: int
    resize: str
    see: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    weights: str
    channels: int = 3
    image_shape: tuple[int, int, int] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] | None = None
    max_features: int | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [B,C,H,W]; where RGB is seen, grey is RGB of three equal channels."""
        return self.see(images.expand(-1, self.channels, -1, -1))


@dataclass(frozen=True)
class Weights:
    """A published file of weights.

    Attributes: file, its name; address; sha256, the first digits where they are published; size, in words.
    """

    file: str
    address: str
    sha256: str
    size: str


WEIGHTS = {
    "inception": Weights(
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d",
        "91 MB",
    ),
    "dinov2": Weights(
        "dinov2_vitl14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        "",
        "1.2 GB",
    ),
}

SHIPPED = {digits.NAME: digits.WEIGHTS}


def make_extractors(
    names: list[str], paths: Mapping[str, Path | None], device: torch.device, download: bool = False
) -> dict[str, Extractor]:
    """Extractor by name; paths: of their weights, None for the usual cache. RunError, see `find_weights`."""
    files = {name: find_weights(name, paths.get(name), download) for name in names}
    return {name: MAKERS[name](path, device) for name, path in files.items()}


def find_weights(name: str, path: Path | None = None, download: bool = False) -> Path:
    """The file of an extractor's weights: at `path`, or in torch's cache or ours; download: or fetched to it.

    Errors    RunError when it is not there, saying where to put it, or is not the file that was published.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    if name == "inception" and find_spec("torch_fidelity") is None:
        raise RunError(
            "Inception is torch-fidelity's, which is not installed: pip install 'mclr_fast[metrics]'."
        )
    wanted = WEIGHTS[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / wanted.file
    found = path or cached
    if path is None and not cached.is_file() and (download or place_of(wanted.address).is_file()):
        return fetch(wanted.address, sha256=wanted.sha256 or None, note=wanted.size)
    if not found.is_file():
        raise RunError(
            f"{name} needs its weights, and there is no file {found}: put {wanted.file} ({wanted.size}, from "
            f"{wanted.address}) at {cached}, say where it is with --{name}-weights, or have it fetched with "
            "--download."
        )
    if wanted.sha256 and found.name == wanted.file and not file_sha256(found).startswith(wanted.sha256):
        raise RunError(
            f"{found} is not the published file: its SHA-256 is {file_sha256(found)}, and should begin with "
            f"{wanted.sha256}. Download it again from {wanted.address}."
        )
    return found


def inception(path: Path, device: torch.device) -> Extractor:
    """torch-fidelity's Inception-v3, TensorFlow's of 2015: 2048 features, 1008 logits without bias."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # Its constructor unpickles whatever a file holds: it is given bytes of ours, of tensors alone.
    plain = io.BytesIO()
    torch.save(_tensors(path), plain)
    plain.seek(0)
    try:
        net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=plain
        )
    except RuntimeError as error:
        raise RunError(f"{path} does not hold torch-fidelity's Inception ({_first(error)}).") from error
    net = net.to(device)

    def see(images: Tensor) -> tuple[Tensor, Tensor]:
        return net(images.to(device))

    return Extractor("inception", 2048, "bilinear to 299 as TensorFlow 1", see, file_sha256(path))


def dinov2(path: Path, device: torch.device) -> Extractor:
    """DINOv2 of the size that the file is of; FD-DINOv2 is published with ViT-L/14."""
    try:
        net = DINOv2.of(_tensors(path)).to(device)
    except ValueError as error:
        raise RunError(f"{path}: {error}.") from error

    def see(images: Tensor) -> tuple[Tensor, None]:
        return net.features(images), None

    return Extractor("dinov2", net.embed_dim, "bicubic with antialias to 224", see, file_sha256(path))


def digit_classifier(path: Path, device: torch.device) -> Extractor:
    """The embedded runs' classifier, which ships with the package."""
    net = digits.DigitClassifier.pretrained().to(device)
    width, shape = digits.NUM_FEATURES, (1, 16, 16)
    return Extractor(digits.NAME, width, "none", net, file_sha256(path), channels=1, image_shape=shape)


MAKERS = {"inception": inception, "dinov2": dinov2, digits.NAME: digit_classifier}


def _tensors(path: Path) -> dict[str, Tensor]:
    """A state_dict, read as data, of a file that holds nothing else."""
    try:
        held = reading.read(path)
        if not isinstance(held, dict) or not all(map(reading.is_tensor, held.values())):
            raise ValueError("those are a dictionary of tensors.")
        return {name: reading.tensor(path, node) for name, node in held.items()}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} does not hold a network's weights: {_first(error)}") from error


def _first(error: Exception) -> str:
    """The beginning of what an error says, in one line."""
    return " ".join(str(error).split())[:200]
