"""A data set of photograph-like images, to be read for speed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image

from mclr_fast.data.prepare import PNG


def write_png_zip(path: Path, num_images: int) -> None:
    """EDM2's zip of 64x64 PNG images in 10 classes: smooth, with grain."""
    rng = np.random.default_rng(0)
    labels = []
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(num_images):
            coarse = PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            smooth = np.asarray(coarse.resize((64, 64), PIL.Image.Resampling.BICUBIC)).astype(int)
            pixels = (smooth + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)
            name = f"{i // 1000:05d}/img{i:08d}.png"
            with archive.open(zipfile.ZipInfo(name), "w") as file:
                PIL.Image.fromarray(pixels).save(file, "PNG", **PNG)
            labels.append([name, i % 10])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
