"""MCLR in a loop and on a network of your own, from scratch: the embedded digits, a minute on two cores.

Run: python examples/own_network.py
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mclr_fast import MCLRLoss
from mclr_fast.data import open_dataset
from mclr_fast.sampling import edm_sampler

NOISE = dict(P_mean=-0.5, P_std=1.2)  # ln sigma is normal


class Denoiser(nn.Module):
    """D(x; sigma, c), which is all that the losses ask of a network."""

    def __init__(self, width: int = 24):
        super().__init__()
        self.noise, self.classes = nn.Linear(1, width), nn.Embedding(10, width)
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, padding=2**i, dilation=2**i) for i in range(4))

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """x: [N,1,H,W]; sigma: [N], or 0-dim as samplers have it; labels: int64 [N] -> [N,1,H,W]."""
        sigma = sigma.reshape(-1, 1, 1, 1)
        total = (sigma**2 + 0.25).sqrt()
        h = self.first(x / total)
        for conv in self.inner:
            told = self.noise(sigma.flatten()[:, None].log() / 4) + self.classes(labels)
            h = h + conv(nn.functional.silu(h + told[:, :, None, None]))
        return 0.25 / total**2 * x + 0.5 * sigma / total * self.last(nn.functional.silu(h))


def denoising(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """EDM's own loss of each image, [N], to begin with. Source: EDM (arXiv 2206.00364), Table 1."""
    sigma = (NOISE["P_mean"] + NOISE["P_std"] * torch.randn(len(images), 1, 1, 1)).exp()
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    denoised = net(images + sigma * torch.randn_like(images), sigma.flatten(), labels)
    return (weight * (denoised - images) ** 2).sum(dim=(1, 2, 3))


def main(base_steps: int = 1200, steps: int = 10, out: str = "own-digits.png") -> list[float]:
    """Train a base, fine-tune it, sample it to `out`; MCLR's loss before and after, on the same noise."""
    torch.manual_seed(0)
    data, net, mclr = open_dataset("mnist16"), Denoiser(), MCLRLoss(**NOISE)
    images = torch.from_numpy(data.images(np.arange(len(data)))).float() / 127.5 - 1
    labels, losses = torch.from_numpy(data.labels), []
    for loss_fn, num_steps, lr in ((denoising, base_steps, 2e-3), (mclr, steps, 1e-4)):
        optimizer = torch.optim.Adam(net.parameters(), lr)
        for _ in range(num_steps):
            drawn = torch.randint(len(images), (32,))
            loss = loss_fn(net, images[drawn], labels[drawn]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(1)
            losses.append(mclr(net, images[:64], labels[:64]).mean().item())
    with torch.no_grad():
        samples = edm_sampler(net, torch.randn(10, 1, 16, 16), torch.arange(10), num_steps=12, sigma_max=40)
    row = samples.mul(127.5).add(128).clip(0, 255).byte().transpose(0, 2).flatten(1)
    Image.fromarray(row.numpy()).save(out)
    print(f"MCLR's loss: {losses[0]:.1f} -> {losses[1]:.1f}; a sample of each digit: {out}")
    return losses


if __name__ == "__main__":
    main()
