"""Stand-ins of the protocols' extractors, and images to judge with them."""

import numpy as np
import pytest
import torch
from zips import write_zip

from mclr_fast.evaluation import DINOv2
from mclr_fast.evaluation.extractors import published as extractors

WIDTH, CLASSES = 8, 10  # of the stand-in for Inception


def _fields(num_images, seed, size=32, channels=3):
    """Random images, uint8 [n,C,H,W], neighbouring pixels alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_images, channels, size // 8, size // 8), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)


def _see(images):
    """Features and logits of the stand-in, which depend on each image alone."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 16, WIDTH + CLASSES, generator=generator)
    pooled = torch.nn.functional.adaptive_avg_pool2d(images.double() / 255, 4).flatten(2)
    seen = torch.einsum("bcp,cpd->bd", pooled, weights.double()).float()
    return seen[:, :WIDTH], seen[:, WIDTH:]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """{option: file} of a small DINOv2, and of Inception, in whose place `_see` is put."""
    torch.manual_seed(0)
    net = DINOv2(embed_dim=16, depth=2, num_heads=1, img_size=70)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    torch.save(net.state_dict(), tmp_path / "tiny.pth")
    torch.save({}, tmp_path / "inception.pth")

    def stand_in(path, device):
        return extractors.Extractor("inception", WIDTH, "none", _see, extractors.file_sha256(path))

    monkeypatch.setitem(extractors.MAKERS, "inception", stand_in)
    return {"dinov2": tmp_path / "tiny.pth", "inception": tmp_path / "inception.pth"}


@pytest.fixture
def zips(tmp_path):
    """real.zip and made.zip in tmp_path: 40 and 36 images of 32x32."""
    write_zip(tmp_path / "real.zip", _fields(40, 0), np.arange(40) % 4)
    write_zip(tmp_path / "made.zip", _fields(36, 1) // 2, np.arange(36) % 4)
    return tmp_path / "real.zip", tmp_path / "made.zip"


@pytest.fixture(scope="session")
def fields():
    """`fields(num_images, seed, size=32, channels=3)`: random images."""
    return _fields


@pytest.fixture(scope="session")
def see():
    """What is put in Inception's place."""
    return _see
