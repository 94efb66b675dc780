"""p(c|x_t) of noisy images: the weight of weighted MCLR, and what tells a class's best samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mclr_fast.sampling.noise_level import NoiseLevel

WIDTH, HIDDEN = 16, 64
NUM_BINS = 8  # of the noise level, each with its own temperature
HELDOUT_DRAWS = 8  # noises a held-out image is seen with


class NoisyClassifier(nn.Module):
    """A small convolutional net, conditioned on the noise level, with a temperature per noise bin.

    Args:
        image_shape: (C, H, W) in the model's range; class_probs: p(c), [M].
        P_mean, P_std: of the ln sigma it is trained at; sigma_data: of the images.

    Attributes: arguments, to build it again.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        class_probs: list[float],
        P_mean: float,
        P_std: float,
        sigma_data: float = 0.5,
    ):
        super().__init__()
        self.arguments = {
            "image_shape": list(image_shape),
            "class_probs": list(class_probs),
            "P_mean": P_mean,
            "P_std": P_std,
            "sigma_data": sigma_data,
        }
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data
        channels, *size = image_shape
        self.noise = nn.Sequential(nn.Linear(1, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        self.convs, self.modulations = nn.ModuleList(), nn.ModuleList()
        width = WIDTH
        for stride in self._strides(max(size)):
            self.convs.append(nn.Conv2d(channels, width, 3, padding=1, stride=stride))
            self.modulations.append(nn.Linear(HIDDEN, 2 * width))
            size = [-(-length // stride) for length in size]
            channels, width = width, 2 * WIDTH
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(channels * size[0] * size[1], HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, len(class_probs)),
        )
        self.register_buffer("temperature", torch.ones(NUM_BINS))
        self.register_buffer("class_probs", torch.tensor(class_probs))

    def forward(self, x_noisy: Tensor, sigma: Tensor) -> Tensor:
        """Logits over the temperature. x_noisy: float32 [B,C,H,W]; sigma: [B] -> float32 [B,M]."""
        return self.logits(x_noisy, sigma) / self.temperature[self.bins(sigma)][:, None]

    def logits(self, x_noisy: Tensor, sigma: Tensor) -> Tensor:
        """Uncalibrated logits, [B,M]."""
        noise = self.noise(self._level(sigma)[:, None])
        scale = (sigma**2 + self.sigma_data**2).rsqrt().view(-1, 1, 1, 1)
        h = (x_noisy * scale).contiguous(memory_format=torch.channels_last)
        for conv, modulation in zip(self.convs, self.modulations, strict=True):
            gain, bias = modulation(noise)[:, :, None, None].chunk(2, dim=1)
            h = F.silu(F.group_norm(conv(h), 1) * (1 + gain) + bias)
        return self.head(h)

    def bins(self, sigma: Tensor) -> Tensor:
        """The bin of each noise level, equally probable in training: [B] -> int64 [B]."""
        share = torch.special.ndtr(self._level(sigma))
        return (share * NUM_BINS).long().clamp(0, NUM_BINS - 1)

    @torch.no_grad()
    def ratio(self, x_noisy: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """p_t(x_t|c~) / p_t(x_t) = p(c~|x_t) / p(c~), at most 1 / p(c~).

        Shapes    x_noisy: [n,C,H,W], or [n,w,C,H,W] with an image a label; sigma: [n]; labels: int64 [n,w]
                  -> float32 [n,w].
        Source    Bayes' rule for the weight of eq. 23.
        """
        columns = labels.shape[1] if x_noisy.ndim == 5 else 1
        x = x_noisy.flatten(0, 1) if x_noisy.ndim == 5 else x_noisy
        probs = self(x.float(), sigma.repeat_interleave(columns)).softmax(dim=1)
        if x_noisy.ndim == 5:
            own = probs.gather(1, labels.reshape(-1, 1)).view(labels.shape)
        else:
            own = probs.gather(1, labels)
        return own / self.class_probs[labels]

    @staticmethod
    def _strides(size: int) -> list[int]:
        """Halve at once where the image is large, then by steps down to at most 4x4."""
        strides = [2 if size > 8 else 1, 1]
        size = -(-size // strides[0])
        while size > 4:
            strides.append(2)
            size = -(-size // 2)
        return strides

    def _level(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self.P_mean) / self.P_std


def train_noisy_classifier(
    images: Callable[[np.ndarray], Tensor],
    labels: np.ndarray,
    num_classes: int,
    noise: NoiseLevel,
    *,
    num_steps: int = 1000,
    batch_size: int = 128,
    heldout_share: float = 0.1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[NoisyClassifier, dict[str, Any]]:
    """Train on 1 - heldout_share of the images, calibrate on one half of the rest, judge on the other.

    Args: images: indices int64 [m] -> float32 [m,C,H,W] in the model's range; labels: int64 numpy [n];
        noise: the law of the noise levels it is trained at.
    Returns the classifier in eval mode, and on held-out images its accuracy, negative log-likelihood and
    expected calibration error, before and after the temperatures. Repeatable: all randomness is seeded.
    Errors    ValueError for fewer than 20 images.
    """
    if len(labels) < 20:
        raise ValueError(f"{len(labels)} images are too few to train and calibrate a classifier: 20 or more.")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).numpy()
    num_heldout = max(int(heldout_share * len(labels)), 2)
    heldout, train = order[:num_heldout], order[num_heldout:]
    counts = np.bincount(labels, minlength=num_classes)
    probs = (counts.clip(min=1) / counts.clip(min=1).sum()).tolist()

    def noisy(index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        x = images(index)
        sigma = noise.sigma(torch.randn(len(index), generator=generator))
        x = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
        return tuple(v.to(device) for v in (x, sigma, torch.from_numpy(labels[index])))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = tuple(images(train[:1]).shape[1:])
        net = NoisyClassifier(shape, probs, noise.P_mean, noise.P_std, noise.sigma_data).to(device)
        net = net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, num_steps)
        for _ in range(num_steps):
            index = train[torch.randint(len(train), (batch_size,), generator=generator).numpy()]
            x, sigma, target = noisy(index)
            loss = F.cross_entropy(net.logits(x, sigma), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()

    def seen(part: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            draws = [noisy(part) for _ in range(HELDOUT_DRAWS)]
            logits = torch.cat([net.logits(x, sigma) for x, sigma, _ in draws])
        sigma, target = (torch.cat([draw[i] for draw in draws]) for i in (1, 2))
        return logits, net.bins(sigma), target

    net.temperature.copy_(best_temperatures(*seen(heldout[::2])))
    logits, bins, target = seen(heldout[1::2])
    quality = {"heldout_images": len(heldout[1::2])}
    for name, scaled in (("before", logits), ("after", logits / net.temperature[bins][:, None])):
        quality |= {
            f"nll_{name}": F.cross_entropy(scaled, target).item(),
            f"ece_{name}": expected_calibration_error(scaled.softmax(dim=1), target),
        }
    quality["accuracy"] = (logits.argmax(dim=1) == target).double().mean().item()
    return net, quality


def best_temperatures(logits: Tensor, bins: Tensor, target: Tensor) -> Tensor:
    """The temperature of each bin that makes the targets likeliest, from a fine grid over 1/4 to 8.

    logits: [m,M]; bins, target: int64 [m] -> float32 [NUM_BINS], 1 where a bin is empty.
    """
    grid = torch.logspace(-2, 3, 101, base=2, device=logits.device)
    best = torch.ones(NUM_BINS, device=logits.device)
    for i in range(NUM_BINS):
        inside = bins == i
        if bool(inside.any()):
            losses = [F.cross_entropy(logits[inside] / t, target[inside]) for t in grid]
            best[i] = grid[torch.stack(losses).argmin()]
    return best


def expected_calibration_error(probs: Tensor, target: Tensor, num_bins: int = 15) -> float:
    """Mean |accuracy - confidence| over bins of equal width in confidence, weighted by their sizes.

    probs: [m,M]; target: int64 [m]. Source: Guo et al. (arXiv 1706.04599), eq. 3.
    """
    confidence, predicted = probs.double().max(dim=1)
    correct = (predicted == target).double()
    bins = (confidence * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64, device=probs.device)
    return gaps.index_add(0, bins, correct - confidence).abs().sum().item() / len(target)
