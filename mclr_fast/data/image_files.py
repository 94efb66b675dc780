"""Images written to disk: as a data set in one zip, or a PNG each."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import replacing, write_json


def write_zip(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """uint8 [n,C,H,W] as PNG, or float32 [n,8,h,w] as .npy, and their labels; atomically."""
    suffix = ".png" if images.dtype == np.uint8 else ".npy"
    names = [f"{i // 1000:05d}/img{i:08d}{suffix}" for i in range(len(images))]
    pairs = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, image in zip(names, images, strict=True):
            archive.writestr(zipfile.ZipInfo(name), _file(image))  # a fixed date: same samples, same bytes
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": pairs}))


def _file(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    if image.dtype == np.uint8:
        pixels = image.transpose(1, 2, 0)
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    else:
        np.save(file, image)
    return file.getvalue()


def add_labels(path: Path, labels: dict[str, int]) -> None:
    """Write file names and classes as EDM2's dataset.json, beside those that it has."""
    try:
        known = dict(json.loads(path.read_text())["labels"]) if path.exists() else {}
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(f"{path} is malformed ({error!r}): choose another --outdir.") from error
    write_json(path, {"labels": [[name, label] for name, label in sorted((known | labels).items())]})


def write_png(path: Path, image: Tensor) -> None:
    """uint8 [C,H,W] -> PNG, atomically."""
    pixels = image.permute(1, 2, 0).numpy()
    with replacing(path) as temporary:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(temporary, "PNG")
