"""Stand-ins for others' training code, and samples for DDO."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

import edm2_loop
from var_loop import CLASSES, VQVAE_NET, write_tokens

from mclr_fast.integrations import var
from mclr_fast.integrations.nvlabs_edm2 import DDOLoss
from mclr_fast.models import describe, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.var import VQVAE

NET = dict(
    img_resolution=8, img_channels=1, label_dim=4, model_channels=8, channel_mult=(1,), num_blocks=1,
    attn_resolutions=(), logvar_channels=8,
)  # fmt: skip


@pytest.fixture
def write_samples(tmp_path):
    """`write_samples(labels, size)`: an EDM2 folder of samples; image i is grey level 10 i everywhere."""

    def write(labels=tuple(range(4)) * 3, size=8):
        folder = tmp_path / f"samples{len(labels)}-{size}"
        folder.mkdir()
        names = [f"img{i:08d}.png" for i in range(len(labels))]
        for i, name in enumerate(names):
            Image.fromarray(np.full((size, size), 10 * i, dtype=np.uint8)).save(folder / name)
        pairs = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
        (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
        return str(folder)

    return write


@pytest.fixture
def write_model(tmp_path):
    """`write_model(seed, **net)`: a model folder that `mclr_fast.models.load` reads, and its net."""

    def write(seed=0, **arguments):
        torch.manual_seed(seed)
        net = Precond(**NET | arguments)
        folder = tmp_path / f"model{seed}{'-other' * bool(arguments)}"
        save_model(folder, net.state_dict(), describe(NET | arguments))
        return folder, net

    return write


@pytest.fixture
def losses(write_samples):
    """Name -> a function making a fresh loss."""
    samples = write_samples()
    return edm2_loop.LOSSES | {"ddo": lambda: DDOLoss(0.1, 2.0, samples, **edm2_loop.NOISE)}


@pytest.fixture(params=["mclr", "ccdpo", "cca", "ddo"])
def make_loss(request, losses):
    return losses[request.param]


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory):
    """A VQVAE, and the folder that it is in."""
    folder = tmp_path_factory.mktemp("vqvae")
    torch.manual_seed(0)
    made = VQVAE(**VQVAE_NET).eval()
    save_model(folder, made.state_dict(), describe(VQVAE_NET, "vqvae"))
    return made, folder


@pytest.fixture(scope="module")
def make_ddo(vqvae):
    """A DDOLoss against eight samples of the classes CLASSES."""
    path = write_tokens(vqvae[1] / "samples.zip", CLASSES)
    return lambda **more: var.DDOLoss(0.3, 2.0, path, vqvae[1], **more)
