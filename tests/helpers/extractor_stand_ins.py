"""Stand-ins of the protocols' extractors, and images to judge with them."""

import numpy as np
import torch

from mclr_fast.evaluation import DINOv2
from mclr_fast.evaluation.extractors import published as extractors

WIDTH, CLASSES = 8, 10  # of the stand-in for Inception


def fields(num_images, seed, size=32, channels=3):
    """Random images, uint8 [n,C,H,W], neighbouring pixels alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_images, channels, size // 8, size // 8), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)


def see(images):
    """Features and logits of the stand-in, which depend on each image alone."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 16, WIDTH + CLASSES, generator=generator)
    pooled = torch.nn.functional.adaptive_avg_pool2d(images.double() / 255, 4).flatten(2)
    seen = torch.einsum("bcp,cpd->bd", pooled, weights.double()).float()
    return seen[:, :WIDTH], seen[:, WIDTH:]


def put_in_place(folder, monkeypatch):
    """{extractor: file} of a small DINOv2, and of Inception, in whose place `see` is put."""
    torch.manual_seed(0)
    net = DINOv2(embed_dim=16, depth=2, num_heads=1, img_size=70)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    torch.save(net.state_dict(), folder / "tiny.pth")
    torch.save({}, folder / "inception.pth")

    def stand_in(path, device):
        return extractors.Extractor("inception", WIDTH, "none", see, extractors.file_sha256(path))

    monkeypatch.setitem(extractors.MAKERS, "inception", stand_in)
    return {"dinov2": folder / "tiny.pth", "inception": folder / "inception.pth"}
