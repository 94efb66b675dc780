"""Fixtures shared by all tests."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(Path(__file__).parent))  # for stand_ins


@pytest.fixture(scope="session")
def golden():
    """`golden(stem)`: the arrays of tests/golden/<stem>.npz, recorded from reference programs."""
    return lambda stem: np.load(GOLDEN / f"{stem}.npz", allow_pickle=False)


@pytest.fixture
def mark(tmp_path):
    """A file that only code of a pickle would make."""
    return tmp_path / "code-ran"


@pytest.fixture
def theirs(tmp_path, mark):
    """An EDM2 network, its snapshot, whose source would leave the mark, and its training state."""
    from stand_ins import ARGUMENTS, snapshot, training_state

    from mclr_fast.models.edm2 import Precond

    torch.manual_seed(0)
    net = Precond(**ARGUMENTS)
    with torch.no_grad():
        net.unet.out_gain.fill_(0.5)
    snapshot_path, state_path = tmp_path / "net.pkl", tmp_path / "training-state-0000004.pt"
    snapshot_path.write_bytes(snapshot(net, ARGUMENTS, f"open({str(mark)!r}, 'w')"))
    state_path.write_bytes(training_state(net))
    return net, snapshot_path, state_path


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory):
    """The folder of an AutoencoderKL with random weights that halves images."""
    diffusers = pytest.importorskip(
        "diffusers", reason="latents are made with diffusers: pip install 'mclr_fast[latents]'"
    )
    folder = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[4, 4],
            norm_num_groups=2,
            latent_channels=4,
        ).save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items):
    """Tests marked gpu skip themselves where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
