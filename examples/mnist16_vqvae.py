"""The VQVAE of the embedded runs, trained on their 3,000 training digits; the same seed gives the same one.

Run: pip install -e ".[demo]" && python examples/mnist16_vqvae.py OUT

Writes OUT/model.safetensors (half precision) and OUT/config.json, which ship in assets/mnist16-vqvae, and
prints the FD of digits through tokens. Six minutes of one core.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mclr_fast.data import open_dataset
from mclr_fast.evaluation.extractors.digits import DigitClassifier
from mclr_fast.evaluation.metrics.frechet import feature_statistics, frechet_distance
from mclr_fast.models import describe, save_model
from mclr_fast.models.var import VQVAE

ARGUMENTS = dict(
    vocab_size=128,
    z_channels=8,
    ch=32,
    v_patch_nums=[1, 2, 3, 4],
    ch_mult=[1, 1, 1],
    img_channels=1,
)
COMMITMENT = 0.25  # weight of features' distance to their entries, beside entries' to their features
BATCH, LEARNING_RATE, CLIP = 50, 2e-3, 1.0
RESTART_EVERY = 60  # steps after which entries that none of them used begin anew


class TokenLoss:
    """Features made of tokens as in training, and how far they are from what they should be.

    After each scale, what its tokens and the coarser ones' stand for is compared with the features: entries
    are pulled to features, and features (COMMITMENT) to entries. Images' gradients pass straight through.
    Source: VQ-VAE (arXiv 1711.00937), eq. 3, over the scales of VAR (arXiv 2404.02905), algorithm 1.
    """

    def __init__(self, vqvae: VQVAE, generator: torch.Generator):
        self.quantizer, self.generator = vqvae.quantizer, generator
        self.hits = torch.zeros(self.quantizer.vocab_size)

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B,Cv,P,P] -> what the decoder is given, of the same shape, and the loss, a scalar."""
        tokens = self.quantizer.encode(features)
        fhat, loss = torch.zeros_like(features), 0.0
        for k, each in enumerate(tokens):
            self.hits += torch.bincount(each.flatten(), minlength=len(self.hits))
            fhat = fhat + self.quantizer.features(each, k)
            loss = loss + F.mse_loss(fhat, features.detach())
            loss = loss + COMMITMENT * F.mse_loss(fhat.detach(), features)
        return features + (fhat - features).detach(), loss / len(tokens)

    @torch.no_grad()
    def restart(self, unused: Tensor, features: Tensor) -> None:
        """These entries, int64 [n], become features of random places."""
        places = features.movedim(1, -1).flatten(0, -2)
        chosen = torch.randint(len(places), (len(unused),), generator=self.generator)
        self.quantizer.embedding.weight[unused] = places[chosen] / len(self.quantizer.patch_nums)

    def take_unused(self) -> Tensor:
        """Entries that no token was since the last call, int64 [n]."""
        unused = (self.hits == 0).nonzero().flatten()
        self.hits.zero_()
        return unused


def train_vqvae(images: np.ndarray, num_steps: int, *, seed: int = 0, say=lambda line: None) -> VQVAE:
    """From scratch on uint8 [n,1,16,16]: mean absolute and squared error of pixels, and `TokenLoss`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vqvae = VQVAE(**ARGUMENTS)
    through_tokens = TokenLoss(vqvae, generator)
    optimizer = torch.optim.Adam(vqvae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, num_steps, pct_start=0.05)
    pixels, started = torch.from_numpy(images), time.perf_counter()
    for step in range(num_steps):
        index = torch.randint(len(pixels), (BATCH,), generator=generator)
        x = pixels[index].float() / 127.5 - 1
        features = vqvae.encode_features(x)
        given, of_tokens = through_tokens(features)
        error = vqvae.decoder(vqvae.post_quant_conv(given)) - x
        loss = error.abs().mean() + error.square().mean() + of_tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vqvae.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        if (step + 1) % RESTART_EVERY == 0:
            unused = through_tokens.take_unused()
            if step < num_steps * 2 // 3:  # then entries stay where they are
                through_tokens.restart(unused, features)
            took = time.perf_counter() - started
            say(
                f"step {step + 1:5}  pixels {error.square().mean():.4f}  tokens {of_tokens:.4f}  "
                f"unused {len(unused):3}  {took:.0f} s"
            )
    return vqvae.eval()


@torch.no_grad()
def reconstructed(vqvae: VQVAE, images: np.ndarray) -> Tensor:
    """uint8 [n,1,16,16] through tokens and back."""
    parts = torch.from_numpy(images).split(200)
    made = [vqvae.decode_tokens(vqvae.encode_tokens(part.float() / 127.5 - 1)) for part in parts]
    return ((torch.cat(made) + 1) / 2 * 255).to(torch.uint8)


@torch.no_grad()
def distance(images: Tensor, reference: Tensor) -> float:
    """FD between two sets, uint8 [n,1,16,16], as the embedded runs are judged."""
    judge = DigitClassifier.pretrained()
    return frechet_distance(*feature_statistics(judge(images)[0]), *feature_statistics(judge(reference)[0]))


def main(arguments: list[str] | None = None) -> None:
    """Train, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    train, heldout = (open_dataset("mnist16", split) for split in ("train", "heldout"))
    vqvae = train_vqvae(train.images(np.arange(len(train))), options.steps, seed=options.seed, say=print)
    vqvae.half().float()  # judged as it is kept
    state = {name: tensor.half() for name, tensor in vqvae.state_dict().items()}
    save_model(options.out, state, describe(ARGUMENTS, "vqvae", made_by="examples/mnist16_vqvae.py"))
    own, others = (data.images(np.arange(len(data))) for data in (train, heldout))
    for name, made in {
        "training digits through tokens": reconstructed(vqvae, own),
        "held-out digits through tokens": reconstructed(vqvae, others),
        "held-out digits": torch.from_numpy(others),
    }.items():
        print(f"FD to the training digits {distance(made, torch.from_numpy(own)):7.3f}  {name}")


if __name__ == "__main__":
    main()
