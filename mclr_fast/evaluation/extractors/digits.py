"""A small digit classifier: the feature extractor of the embedded run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from mclr_fast.runtime.tensor_files import read_tensors

from .fitting import fit

NAME = "mnist16-classifier"
NUM_FEATURES = 16
WEIGHTS = Path(__file__).parent.parent.parent / "assets" / "mnist16-classifier.safetensors"


class DigitClassifier(nn.Module):
    """Three convolutions, 16 standardised features, one linear layer.

    Few features, so that FD is stable at the sample sizes of a CPU run; standardised on the training
    digits (batch normalisation without gain), so that FD has no arbitrary scale.
    """

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4 * 4, NUM_FEATURES),
            nn.BatchNorm1d(NUM_FEATURES, affine=False),
        )
        self.head = nn.Linear(NUM_FEATURES, 10)

    @classmethod
    def pretrained(cls) -> DigitClassifier:
        """The shipped classifier, in eval mode. `train_digit_classifier` makes it again."""
        net = cls()
        net.load_state_dict(read_tensors(WEIGHTS))
        return net.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: uint8 [B,1,16,16], on any device -> features float32 [B,16], logits float32 [B,10]."""
        features = self.body(images.to(self.head.weight.device).float() / 127.5 - 1)
        return features, self.head(features)


def train_digit_classifier(
    images: np.ndarray, labels: np.ndarray, *, num_epochs: int = 60, seed: int = 0
) -> DigitClassifier:
    """Train from scratch on uint8 [n,1,16,16] images with small random affine changes; seeded."""
    batch = 100
    num_steps = num_epochs * len(images) // batch
    return fit(DigitClassifier, images, labels, batch_size=batch, num_steps=num_steps, seed=seed)
