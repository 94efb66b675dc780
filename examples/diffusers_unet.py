"""MCLR on a network that is not EDM2's: a UNet2DModel of diffusers, as a denoiser of small digits.

Run: pip install -e ".[examples]" && python examples/diffusers_unet.py

The losses of `mclr_fast.integrations.nvlabs_edm2` call net(x, sigma, one-hot labels, return_logvar=True) and
expect the denoised images: `Denoiser` below is all that a network needs for them.
"""

import argparse

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from mclr_fast.data import SampleOrder, open_dataset
from mclr_fast.integrations.nvlabs_edm2 import MCLRLoss
from mclr_fast.models.codecs import codec_for
from mclr_fast.objectives import NoiseLevel
from mclr_fast.ops import weighted_sq_error

NUM_CLASSES, SIGMA_DATA = 10, 0.5
NOISE = NoiseLevel(P_mean=-0.5, P_std=1.0, sigma_data=SIGMA_DATA)


class Denoiser(nn.Module):
    """D(x; sigma, c) of a UNet that predicts EDM's F. Source: EDM (arXiv 2206.00364), Table 1."""

    def __init__(self, unet: UNet2DModel):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor, return_logvar: bool = False):
        """x: [B,C,H,W]; sigma: [B] or [B,1,1,1]; labels: one-hot [B,classes] -> D, or (D, logvar)."""
        sigma = sigma.reshape(-1, 1, 1, 1)
        total = sigma**2 + SIGMA_DATA**2
        # The UNet embeds time steps of about -1000 to 1000: that many times EDM's c_noise, ln(sigma) / 4.
        time = 1000 * sigma.flatten().log() / 4
        raw = self.unet(x / total.sqrt(), time, class_labels=labels.argmax(dim=1)).sample
        denoised = SIGMA_DATA**2 / total * x + sigma * SIGMA_DATA / total.sqrt() * raw
        # A network without EDM2's uncertainty u(sigma) gives zeros for it.
        return (denoised, torch.zeros_like(sigma)) if return_logvar else denoised


def make_net() -> Denoiser:
    """A small UNet for 16x16 grey images of 10 classes; UNet2DModel.from_pretrained works as well."""
    return Denoiser(
        UNet2DModel(
            sample_size=16,
            in_channels=1,
            out_channels=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            num_class_embeds=NUM_CLASSES,
        )
    )


class Digits:
    """Minibatches of the embedded digits: images in [-1, 1] and one-hot labels."""

    def __init__(self, batch_size: int):
        self.data, self.batch_size = open_dataset("mnist16"), batch_size
        self.codec, self.order = codec_for(self.data.image_shape), SampleOrder(len(self.data), seed=0)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        index = self.order.indices(np.arange(self.batch_size) + step * self.batch_size)
        images = self.codec.encode(torch.from_numpy(self.data.images(index)))
        return images, nn.functional.one_hot(torch.from_numpy(self.data.labels[index]), NUM_CLASSES).float()


def denoising_loss(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """EDM's own loss of each image, [N], to make a base."""
    sigma = NOISE.sigma(torch.randn(len(images)))
    x_noisy = images + sigma.view(-1, 1, 1, 1) * torch.randn_like(images)
    denoised = net(x_noisy, sigma, labels)[:, None]
    return weighted_sq_error(denoised, images, x_noisy, sigma, NOISE.weight(sigma), output="denoised")[:, 0]


def train(net: nn.Module, loss_fn, digits: Digits, steps: int, lr: float) -> None:
    """Adam on the mean over images of loss_fn(net=, images=, labels=)."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        images, labels = digits[step]
        optimizer.zero_grad()
        loss_fn(net=net, images=images, labels=labels).mean().backward()
        optimizer.step()


@torch.no_grad()
def energies(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean energy of images under their own label and under the class after it, on the same noise."""
    found = []
    for one_hot in (labels, labels.roll(1, dims=1)):
        torch.manual_seed(1)
        found.append(denoising_loss(net, images, one_hot).mean().item())
    return found[0], found[1]


def main(base_steps: int = 200, steps: int = 10) -> list[tuple[float, float]]:
    """Train a base, fine-tune it with MCLR, and print the energies before and after."""
    torch.manual_seed(0)
    net, digits = make_net(), Digits(batch_size=32)
    train(net, denoising_loss, digits, base_steps, lr=2e-3)
    held = digits[base_steps]
    found = [energies(net, *held)]
    train(net, MCLRLoss(NOISE.P_mean, NOISE.P_std, num_negatives=3), digits, steps, lr=1e-4)
    found.append(energies(net, *held))
    for name, (own, wrong) in zip(("denoising", "MCLR"), found, strict=True):
        print(
            f"after {name}: energy {own:.1f} under the right label, {wrong - own:.1f} more under a wrong one"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base-steps", type=int, default=200, help="steps of denoising (default 200)")
    parser.add_argument("--steps", type=int, default=10, help="steps of MCLR (default 10)")
    options = parser.parse_args()
    main(options.base_steps, options.steps)
