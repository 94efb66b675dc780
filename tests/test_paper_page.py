"""docs/paper.md: its commands are ones that the doors take, its tables are the paper's and the dry run's."""

import re
import shlex
from pathlib import Path

import pytest
import tyro

from mclr_fast import config as options
from mclr_fast.evaluation.protocols import protocol_names
from mclr_fast.experiments.checks import check_options, check_used
from mclr_fast.experiments.estimates.cost import cost_lines, cost_of
from mclr_fast.models import Model, describe
from mclr_fast.models.storage.published import FILES
from mclr_fast.recipes import get_recipe
from mclr_fast.reports.paper_table import paper_table
from mclr_fast.train import parse
from mclr_fast.training.memory import StepMemory

PAGE = (Path(__file__).parents[1] / "docs" / "paper.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").strip().splitlines()]
CONFIGS = {
    "sample": options.SampleConfig,
    "evaluate": options.EvaluateConfig,
    "convert": options.ConvertConfig,
    "prepare": options.PrepareConfig,
}


def parsed(command):
    """(door, its options) of a command of the page."""
    words = shlex.split(command)
    at = words.index("-m")
    door, arguments = words[at + 1].removeprefix("mclr_fast."), words[at + 2 :]
    if door == "train":
        return door, parse(arguments)
    return door, tyro.cli(CONFIGS[door], args=arguments)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "mclr_fast.report" not in c])
def test_a_command_is_one_that_its_door_takes(command):
    door, config = parsed(command)
    if door == "train":
        check_used(config, get_recipe(config.recipe))
        check_options(config, 8, need_files=not config.dry_run)
    if door == "train" and config.recipe != "edm2":  # the miniature's
        base = FILES[config.init].name.replace("_", "-")
        assert base.startswith(config.recipe.removesuffix("-search"))
    if door == "evaluate" and config.ref:  # else it is as the model's run says
        assert protocol_names(config.protocol) == ["fd-dinov2", "pr-inception", "is"]
        assert {FILES[name].kind for name in config.ref} == {"statistics"}


def test_every_published_name_is_one():
    names = set(re.findall(r"\bedm2-img\d+-\w+-(?:\d{7}-\d\.\d{3}|ddo)\b", PAGE))
    assert len(names) == 4 and names <= FILES.keys()


def test_the_report_s_runs_are_those_that_are_trained():
    (report,) = (command for command in COMMANDS if "mclr_fast.report" in command)
    trained = {str(parsed(c)[1].outdir) for c in COMMANDS if "torchrun" in c}
    own = {run for run in trained if "img64" in run and "search" not in run}
    assert set(re.findall(r"runs/\S+", report)) == own


def test_the_tables_are_the_paper_s():
    for group in paper_table().groups:
        for row in group.rows:
            cells = [str(row.nfe), *(c.text(row.values[c.key]) for c in paper_table().columns)]
            assert f" | {' | '.join(cells)} |" in PAGE


def counted(config):
    """What a run's steps are counted with."""
    return StepMemory(config, Model.of(describe(config.net, config.family)))


def told_of_each(row):
    """Of the page's rows of this kind: (a run, its steps, what the page says of it)."""
    for objective in ("mclr", "ccdpo"):
        pattern = rf"^\| {row.format(objective)} \| ([\d.]+) \| ([\d.]+) \|$"
        (cells,) = re.findall(pattern, PAGE, re.MULTILINE)
        for recipe, told in zip(("edm2-img64-s", "edm2-img512-l"), cells, strict=True):
            config = parse(["--recipe", recipe, "--objective", objective, "--precision", "bf16"])
            yield config, counted(config), told


def test_the_memory_is_the_dry_run_s():
    for _, step, told in told_of_each("`{}`.*"):
        assert f"{step.of(8, 64).total / 2**30:.1f}" == told


def test_the_gpu_hours_are_the_dry_run_s():
    for config, step, told in told_of_each("hours, `{}`"):
        assert f"{cost_of(config, step).total:.3g}" == told
    config = parse(["--recipe", "edm2-img64-s-search"])
    (line,) = cost_lines(config, counted(config))
    (told,) = re.findall(r"By `--dry-run` ([\d.]+) GPU-hours for EDM2-S", PAGE)
    assert line.startswith(f"GPU-hours       {told} (12 runs to try, 3 final)")


def test_var_s_hours_and_memory_are_the_dry_run_s():
    (sentence,) = re.findall(r"`--dry-run` says (.*\n)GiB", PAGE)
    told = tuple(re.findall(r"[\d.]+", sentence))
    found = []
    for objective in ("mclr", "ccdpo"):
        config = parse(["--recipe", "var-d24", "--objective", objective, "--precision", "bf16"])
        step = counted(config)
        found.append((f"{cost_of(config, step).total:.3g}", f"{step.of(8, 16).total / 2**30:.1f}"))
    assert told == (found[0][0], found[1][0], found[0][1], found[1][1])
