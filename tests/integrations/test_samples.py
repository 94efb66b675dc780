"""Samples on disk, drawn by class: pixels are in test_nvlabs_edm2.py, VAE latents here."""

import json

import numpy as np
import pytest
import torch

from mclr_fast.integrations.samples import Samples
from mclr_fast.models.codecs import LatentCodec

LABELS = [2, 0, 1, 0, 0, 1, 2]


@pytest.fixture
def latents(tmp_path):
    """Latent i: means i, standard deviations 0.5, of class LABELS[i]."""
    pairs = []
    for i, label in enumerate(LABELS):
        latent = np.concatenate([np.full((4, 2, 2), i), np.full((4, 2, 2), 0.5)]).astype(np.float32)
        np.save(tmp_path / f"img-mean-std-{i:08d}.npy", latent)
        pairs.append([f"img-mean-std-{i:08d}.npy", label])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return str(tmp_path)


def test_latents(latents):
    """Drawn from the VAE's posterior afresh, scaled as the training data; uniform over the class."""
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(100)
    drawn = Samples(latents).draw(labels, 10, 3, like=torch.zeros(300, 4, 2, 2))
    assert drawn.shape == (300, 10, 4, 2, 2) and drawn.dtype == torch.float32
    raw = LatentCodec((4, 2, 2)).unscale(drawn)  # i + 0.5 normal
    source = raw.mean(dim=(2, 3, 4)).round().long()  # 16 values: 0.5 / 4 around i
    assert torch.equal(torch.tensor(LABELS)[source], labels[:, None].expand(-1, 10))
    assert raw.sub(source[:, :, None, None, None]).std().item() == pytest.approx(0.5, rel=0.02)
    counts = source.flatten().bincount()
    for label in range(3):
        members = [i for i, own in enumerate(LABELS) if own == label]
        expected = 1000 / len(members)
        assert all(abs(counts[i] - expected) < 4 * expected**0.5 for i in members)


@pytest.mark.parametrize(("label", "said"), [(10**12, "1000000000000"), (5, "5")])
def test_a_label_that_no_net_knows(latents, label, said):
    """It is named; nothing of its size is made."""
    samples = Samples(latents)
    samples.labels[0] = label
    with pytest.raises(ValueError, match=rf"of \d classes up to {said}, but the net knows classes 0 to 2"):
        samples.draw(torch.tensor([0]), 1, 3, like=torch.zeros(1, 4, 2, 2))


def test_another_number_of_channels(latents):
    with pytest.raises(ValueError, match=r"are \[4, 2, 2\] images, but the training images are \[3, 2, 2\]"):
        Samples(latents).draw(torch.tensor([0]), 1, 3, like=torch.zeros(1, 3, 2, 2))
