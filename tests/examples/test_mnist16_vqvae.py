"""The VQVAE of the embedded VAR: its training repeats, and the shipped one is of its arguments."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mclr_fast.data import open_dataset
from mclr_fast.models import Model, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("mnist16_vqvae")


@pytest.fixture(scope="module")
def digits():
    return open_dataset("mnist16", "heldout").images(np.arange(200))


def test_training_lowers_the_error_and_repeats(example, digits):
    def error(vqvae):
        made = example.reconstructed(vqvae, digits[:50]).float()
        return (made - torch.from_numpy(digits[:50]).float()).square().mean().sqrt()

    first, last, again = (example.train_vqvae(digits, steps) for steps in (1, 12, 12))
    assert error(last) < 0.8 * error(first)
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), again.parameters(), strict=True))


def test_the_gradient_passes_straight_through_and_entries_are_pulled(example):
    vqvae = example.VQVAE(**example.ARGUMENTS)
    through_tokens = example.TokenLoss(vqvae, torch.Generator().manual_seed(0))
    features = torch.randn(3, 8, 4, 4, requires_grad=True)
    given, loss = through_tokens(features)
    torch.testing.assert_close(given, vqvae.quantizer.decode(vqvae.quantizer.encode(features)))
    (passed,) = torch.autograd.grad(given.sum(), features, retain_graph=True)
    assert torch.equal(passed, torch.ones_like(features))
    loss.backward()
    pulled = vqvae.quantizer.embedding.weight.grad.abs().sum(dim=1) > 0
    assert torch.equal(pulled, through_tokens.hits > 0) and through_tokens.hits.sum() == 3 * 30


def test_unused_entries_begin_anew(example):
    vqvae = example.VQVAE(**example.ARGUMENTS)
    through_tokens = example.TokenLoss(vqvae, torch.Generator().manual_seed(0))
    through_tokens.hits[:100] = 1
    before = vqvae.quantizer.embedding.weight.clone()
    unused = through_tokens.take_unused()
    assert unused.tolist() == list(range(100, 128))
    through_tokens.restart(unused, torch.randn(3, 8, 4, 4))
    same = (vqvae.quantizer.embedding.weight == before).all(dim=1)
    assert same[:100].all() and not same[100:].any() and not through_tokens.hits.any()


def test_the_shipped_one(example, digits):
    """Of the script's arguments, in half precision; held-out digits come back nearly as they were."""
    vqvae = load("mnist16-vqvae")
    assert vqvae.description["net"] == example.ARGUMENTS
    error = example.reconstructed(vqvae, digits).float() - torch.from_numpy(digits).float()
    assert error.square().mean().sqrt() < 40


def test_half_precision(load_example, tmp_path):
    load_example("half_precision").main(["mnist16-base", str(tmp_path)])
    own, half = load("mnist16-base"), load(tmp_path)
    whole = {**own.description, "sampler": Model.of(own.description).sampler_defaults}
    assert half.description == whole
    for a, b in zip(own.parameters(), half.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)
    assert (tmp_path / "model.safetensors").stat().st_size < 200_000
    assert json.loads((tmp_path / "config.json").read_text()) == whole


def test_what_ships_of_var_is_small():
    assets = ROOT / "mclr_fast" / "assets"
    folders = [assets / "mnist16-vqvae", assets / "mnist16-var-base"]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 3e6
