"""docs/own-images.md: its own commands run, one after the other, on fewer and smaller images."""

import importlib
import json
import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from mclr_fast import train
from mclr_fast.models import read_config
from mclr_fast.recipes.images import base_duration, default_batch, default_size, tuning_steps

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own-images.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if re.match(r"    (python|torchrun) ", line)]
GUIDE = COMMANDS[:7]  # the first block
LEAST = {  # what is added to each command, so that it takes seconds
    "make_shapes": ["--count", "6", "--side", "16"],
    "prepare": [],
    "train": [
        "--duration",
        "32",
        "--batch-size",
        "8",
        "--device",
        "cpu",
        "--eval-every",
        "0",
        "--control",
        "none",
    ],
    "sample": ["--num-steps", "2", "--device", "cpu"],
    "evaluate": ["--num-steps", "2", "--device", "cpu"],
}
# With the classifier, which wants 50 images a class.
JUDGED = {
    "make_shapes": ["--count", "50", "--side", "16"],
    "train": ["--duration", "64", "--batch-size", "16", "--device", "cpu", "--eval-every", "32",
              "--num-samples", "80", "--num-steps", "2"],
}  # fmt: skip


def shapes():
    """The script that draws them."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples/make_shapes.py")))


def run(command, more):
    """A command of the page, in this process, with what `more` adds."""
    words = shlex.split(command)
    if "-m" in words:
        at = words.index("-m")
        door, arguments = words[at + 1].removeprefix("mclr_fast."), words[at + 2 :]
        assert importlib.import_module(f"mclr_fast.{door}").main([*arguments, *more[door]]) == 0, command
    else:
        assert words[1] == "examples/make_shapes.py"
        shapes().main([*words[2:], *more["make_shapes"]])


def smaller(command, more):
    """The command for images of the smaller side."""
    return command.replace("--resolution 32", "--resolution 16") if more["make_shapes"] else command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_guide_is_these_seven_commands():
    doors = [re.search(r"mclr_fast\.(\w+)|(make_shapes)", command)[0] for command in GUIDE]
    assert [door.removeprefix("mclr_fast.") for door in doors] == [
        "make_shapes", "prepare", "train", "train", "sample", "sample", "evaluate",
    ]  # fmt: skip
    assert len(COMMANDS) == 9


def test_the_guides_commands_run(folder):
    """Up to the samples: six images a class are too few for a judge."""
    for command in GUIDE[:6]:
        run(smaller(command, LEAST), LEAST)
    assert read_config("runs/images")["class_names"] == ["circle", "square", "star"]
    assert len(list((folder / "samples").rglob("*.png"))) == 30
    assert (folder / "samples-grid.png").is_file()
    assert len(list((folder / "stars").rglob("*.png"))) == 10
    wide = train.parse([*shlex.split(COMMANDS[7])[3:], "--device", "cpu"])
    assert (wide.net["model_channels"], wide.net["channel_mult"]) == (32, [1, 2, 2])


@pytest.mark.slow
def test_the_guides_commands_run_to_the_figures(folder, capsys):
    more = LEAST | JUDGED
    for command in GUIDE:
        capsys.readouterr()
        run(smaller(command, more), more)
    out = capsys.readouterr().out
    row = json.loads(out[out.index("{") :])
    assert row["metrics"]["classifier"]["fd"] > 0 and row["samples"] == 80
    summary = json.loads((folder / "runs/images/summary.json").read_text())
    assert summary["grid_names"] == ["circle", "square", "star"]
    assert {row["kind"] for row in summary["rows"]} >= {"real", "base", "guidance", "control", "trained"}


def test_the_recipe_of_its_own_runs(folder):
    """The page's file, as it stands."""
    run(smaller(GUIDE[0], LEAST), LEAST)
    run(smaller(GUIDE[1], LEAST), LEAST)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "mine.py").write_text(code)
    made = train.parse(shlex.split(COMMANDS[8])[3:])
    assert (made.recipe, made.net["model_channels"], made.train.flip) == ("mine", 24, True)
    run(COMMANDS[8], LEAST)
    assert json.loads((folder / "runs/mine/config.json").read_text())["recipe_file"] == "./mine.py:run"


def test_the_table_of_numbers_is_what_the_recipes_choose():
    rows = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("| ")}
    counts = (300, 1_000, 50_000, 1_000_000)
    batches = [default_batch(n) for n in counts]

    def stands(name, values):
        cells = [cell.strip() for cell in rows[name].split("|")[3:-1]]
        assert cells == [value if isinstance(value, str) else f"{value:,}" for value in values], name

    stands("`--batch-size`", batches)
    stands("`--duration` of the base, on a CPU", list(map(base_duration, counts, batches, [False] * 4)))
    stands("on a GPU", list(map(base_duration, counts, batches, [True] * 4)))
    stands("steps of fine-tuning", list(map(tuning_steps, batches)))
    stands("`--size` on a GPU (a CPU: tiny)", [default_size(n, True) for n in counts])


def test_the_shapes_are_the_same_everywhere(tmp_path):
    """By seed alone: no state of the process, and other seeds are other images."""
    drawn = shapes()
    one, again = (drawn.draw("star", 32, 5).tobytes() for _ in range(2))
    assert one == again != drawn.draw("star", 32, 6).tobytes()
    assert drawn.draw("star", 32, 5).size == (32, 32)
    drawn.main([str(tmp_path), "--count", "2"])
    assert (
        sorted(p.parent.name for p in tmp_path.rglob("*.png"))
        == ["circle"] * 2 + ["square"] * 2 + ["star"] * 2
    )
