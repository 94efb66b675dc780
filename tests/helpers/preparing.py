"""Ten images as they come, and `prepare` without its command line."""

import shutil
import tarfile
from pathlib import Path

import torch

from mclr_fast.config import PrepareConfig
from mclr_fast.data import prepare as prepare_data
from mclr_fast.models.vae import VAEEncoder
from mclr_fast.runtime.errors import Interrupted

RESOLUTION = 16
CPU = torch.device("cpu")
NAMES = [f"n{c}/{c}_{i}.{'JPEG' if i else 'png'}" for c in (2, 10) for i in range(5)]  # "n10" before "n2"


def as_source(folder, kind):
    """The same images as a folder, a zip, a tar, or a tar of a tar for every class."""
    if kind == "folder":
        return folder
    if kind == "tars":
        path = folder.with_suffix(".tar")
        with tarfile.open(path, "w") as outer:
            for name in ("n2", "n10"):
                inner = shutil.make_archive(folder.parent / name, "tar", folder / name)
                outer.add(inner, f"{name}.tar")
        return path
    return Path(shutil.make_archive(folder, kind, folder))


class Stop:
    """A stop request that arrives at some look at it."""

    def __init__(self, at=0):
        self.looks, self.at = 0, at

    def check(self):
        self.looks += 1
        if self.looks == self.at:
            raise Interrupted


def run(source, out, stop=None, **options):
    options = {"resolution": RESOLUTION, "threads": 2, **options}
    config = PrepareConfig(source=source, out=out, **options)
    encoder = (lambda: VAEEncoder(config.latents, CPU)) if config.latents else None
    prepare_data.prepare(config, encoder, stop or Stop())
    return out
