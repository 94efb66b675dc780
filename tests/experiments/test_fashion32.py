"""The recipes of Fashion-MNIST: complete runs of two sizes, whose parts fit and whose options are used."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mclr_fast.experiments.arms.marks import make_marks
from mclr_fast.experiments.checks import check_options, check_used
from mclr_fast.experiments.estimates.cost import cost_lines, cost_of
from mclr_fast.experiments.tables.cells import cell_config
from mclr_fast.experiments.tables.table import every_setting
from mclr_fast.models import Model, describe, load, model_from_config, read_config
from mclr_fast.models.storage.files import resolve
from mclr_fast.recipes import get_recipe
from mclr_fast.recipes.mnist16_table import GRID
from mclr_fast.reports.table_page import markdown
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime import formats
from mclr_fast.training.memory import StepMemory

PAGE = Path(__file__).parents[2] / "docs" / "fashion32.md"
SIZES = ("fashion32", "fashion32-small")


@pytest.mark.parametrize(
    ("size", "least", "most"), [("fashion32", 2e6, 5e6), ("fashion32-small", 0.5e6, 1e6)]
)
def test_the_network_is_of_its_size(size, least, most):
    """And the base's is the one that fine-tuning expects, for one channel of 32x32 in ten classes."""
    base, run = get_recipe(f"{size}-base"), get_recipe(size)
    with torch.device("meta"):
        net = model_from_config(describe(base.net, base.family))
    assert least <= sum(parameter.numel() for parameter in net.parameters()) <= most
    assert base.net == run.net
    assert (net.img_channels, net.img_resolution, net.label_dim) == (1, 32, 10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["", "-base", "-proof", "-table"])
def test_every_recipe_is_a_run(size, kind):
    """Its name is its own, its options are in range, and nothing of the objective's is unused."""
    run = get_recipe(size + kind)
    assert (run.recipe, run.protocol) == (size + kind, "classifier")
    check_options(replace(run, data="fashion32.zip", init=None if kind == "-base" else "base"), 1)
    check_used(run, run)


@pytest.mark.parametrize("size", SIZES)
def test_the_base_keeps_averages_and_judges_nothing(size):
    """At least 2M images, a snapshot in every 100,000, labels dropped so that it can be guided."""
    run = get_recipe(f"{size}-base")
    assert not run.is_judged and run.train.duration >= 2_000_000
    assert run.objective.objective == "denoising" and run.objective.label_dropout == 0.1
    assert (run.train.lr_schedule, run.train.ema) == ("edm2", "power")
    marks = make_marks(run.train, snapshot_every=run.train.ema_snapshot_every)
    kept = [0, *(mark.images_seen for mark in marks if mark.snapshot)]
    gaps = {later - earlier for earlier, later in pairwise(kept)}
    assert max(gaps) <= 100_000 and kept[-1] == run.train.duration
    guide = int(re.search(r"--gnet base/snapshots/denoising-(\d+)-0.100", PAGE.read_text())[1])
    assert size != "fashion32-small" or guide in kept  # that of the page's autoguidance


def settled_images():
    """Of the page's second run of the small base, the one that ships."""
    return int(re.search(r"--outdir settled .*--duration (\d+)", PAGE.read_text())[1])


def test_the_shipped_base_is_of_its_recipe():
    """All of it, in at most 6 MB, and what the small runs begin with."""
    recipe, said = get_recipe("fashion32-small-base"), read_config("fashion32-small-base")
    assert (said["made_by"], said["net"], said["null_label"]) == (recipe.recipe, recipe.net, True)
    assert said["images_seen"] == settled_images()
    assert (resolve("fashion32-small-base") / "model.safetensors").stat().st_size < 6e6
    assert load("fashion32-small-base").img_resolution == 32
    assert {get_recipe(f"fashion32-small{kind}").init for kind in ("", "-proof", "-table")} == {recipe.recipe}


def stored(name):
    """What of the small size is kept in docs/results."""
    return json.loads((PAGE.parent / f"results/fashion32-small-{name}.json").read_text())


def test_the_page_has_the_bases_curve():
    page, curve = PAGE.read_text(), stored("base")
    rows = (
        ("images seen", [f"{n:,}" for n in curve["images_seen"]]),
        ("FD", [f"{fd:.2f}" for fd in curve["fd"]]),
    )
    assert all(f"| {name} | {' | '.join(row)} |" in page for name, row in rows) and curve["verdict"] in page
    trained = get_recipe("fashion32-small-base").train.duration + settled_images()
    assert curve["images_seen"][-1] == trained and curve["verdict"].endswith("levelled off")


def line_of(row):
    """A row's figures, as the page's tables have them."""
    return f"{row['fd']:.2f} | {row['is']:.2f} | {row['precision']:.3f} | {row['recall']:.3f} |"


def test_the_page_has_the_proof():
    """Every row of the stored run, of as many fresh samples as the recipe says, and its intervals."""
    page, recipe = PAGE.read_text(), get_recipe("fashion32-small-proof")
    results = stored("proof")["proof"]
    assert [result["seed"] for result in results] == list(recipe.proof_seeds)
    for result in results:
        assert all(
            f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]" in page
            for difference, low, high in (result["fd_minus_base"], result["fd_minus_denoising"])
        )
        for name in ("base", "denoising", "mclr"):
            assert result[name]["samples"] == recipe.proof_samples
            assert line_of(result[name]) in page, (result["seed"], name)


def test_mclr_is_below_base_and_control_for_every_seed():
    """With the whole interval, at as many network calls."""
    for result in stored("proof")["proof"]:
        assert result["fd_minus_base"][2] < 0 and result["fd_minus_denoising"][2] < 0 and result["passed"]
        assert result["mclr"]["nfe"] == result["base"]["nfe"]


def test_the_page_has_the_table():
    """Of every objective of the recipe's grid, with what was tried and the control of the proof."""
    page, content, recipe = PAGE.read_text(), stored("table"), get_recipe("fashion32-small-table")
    assert markdown(TableSummary.from_json(formats.summary(content))) in page
    assert set(content["methods"]) == set(recipe.table["grid"]) and content["seeds"] == list(
        recipe.proof_seeds
    )
    for name, settings in recipe.table["grid"].items():
        tried = content["methods"][name]["grid"]
        assert [entry["settings"] for entry in tried] == settings
        assert all(f"{entry['fd']:.3g}" in page for entry in tried)
    *guided, last = (f"{row['fd']:.2f}" for row in content["guided"])
    assert f"(FD {', '.join(guided)} and {last} at 1.1 to 3)" in page and len(guided) == 4
    judged = [run["judged"] for method in content["methods"].values() for run in method["runs"]]
    assert {row["samples"] for row in judged} == {recipe.proof_samples}


def test_the_table_and_the_proof_are_one():
    """MCLR's runs are the proof's, by another number of ranks, and the base is judged by the same samples."""
    proof, table = stored("proof")["proof"], stored("table")
    runs = table["methods"]["mclr"]["runs"]
    for result, run in zip(proof, runs, strict=True):
        assert run["judged"]["fd"] == pytest.approx(result["mclr"]["fd"], rel=1e-3)
    (base,) = (row for row in table["rows"] if row["kind"] == "base")
    assert base["fd"] == pytest.approx(proof[0]["base"]["fd"], rel=1e-3)


def test_the_page_has_the_other_rows():
    """Of the seeds that judged the table; and the laws of noise."""
    page, (first, last) = PAGE.read_text(), stored("table")["judged_on"]
    for row in stored("rows"):
        assert f"| {row['row']} | {row['nfe']} | {line_of(row)}" in page, row["row"]
        assert row["seeds"] == [first, last]
    for law in stored("noise"):
        early, late = (f"{row['fd']:.2f}" for row in law["rows"] if row["kind"] == "trained")
        line = rf"^\| {law['P_mean']}, deviation {law['P_std']}[^|]* \| {early} \| {late} \|$"
        assert re.search(line, page, re.MULTILINE)


def counted(run):
    """What a run's steps are counted with."""
    return StepMemory(run, Model.of(describe(run.net, run.family)))


def test_the_page_has_the_hours_of_the_dry_run():
    """At the rate that it names, and the networks' parameters."""
    page = PAGE.read_text()
    for kind in ("-base", "", "-proof", "-table"):
        run = replace(get_recipe(f"fashion32-small{kind}"), gpu_tflops=0.06)
        (line,) = cost_lines(run, counted(run))
        hours = line.removeprefix("GPU-hours").split()[0]
        assert f"| `{run.recipe}` | {hours} |" in page
    for size in SIZES:
        run = get_recipe(size)
        with torch.device("meta"):
            net = model_from_config(describe(run.net, run.family))
        number = f"{sum(parameter.numel() for parameter in net.parameters()):,} parameters"
        assert f"| `{size}` | {number}, {run.eval.num_steps} Heun steps |" in page


def test_a_proof_takes_the_hours_of_its_seeds_and_of_their_fresh_samples():
    """And a table makes the base's rows under guidance once, whatever the number of its runs."""
    proof, table = get_recipe("fashion32-small-proof"), get_recipe("fashion32-small-table")
    step = counted(proof)
    one = cost_of(proof, step)
    (line,) = cost_lines(proof, step)
    final = 3 * 3 * proof.proof_samples * one.row
    assert line.startswith(f"GPU-hours       {3 * one.total + final:.3g} (3 seeds) = ")

    def rows(run):
        (line,) = cost_lines(run, step)
        return float(line.split(", rows ")[1].split(",")[0])

    few = {**table.table, "grid": {"mclr": [{"lr": 1e-4}]}}
    table = replace(table, gpu_tflops=1e-3, table=few)
    unguided = replace(table, eval=replace(table.eval, cfg_scales=()))
    guided = 2 * 5 * table.eval.num_samples * one.row * proof.gpu_tflops / table.gpu_tflops
    assert rows(table) - rows(unguided) == pytest.approx(guided, rel=0.05)


@pytest.mark.parametrize(("size", "final"), [("fashion32", 10_000), ("fashion32-small", 5000)])
def test_final_rows_are_of_fresh_samples(size, final):
    """So many, with three training seeds, and of seeds that no evaluation on the way has."""
    run, proof, table = (get_recipe(size + kind) for kind in ("", "-proof", "-table"))
    assert run.eval.final_samples == proof.proof_samples == table.proof_samples == final
    assert proof.proof_seeds == table.proof_seeds == (0, 1, 2)
    assert run.eval.num_samples < proof.proof_first_seed and table.proof_first_seed == proof.proof_first_seed
    assert (proof.eval.control, len(run.eval.cfg_scales), len(table.eval.cfg_scales)) == ("all", 5, 5)


@pytest.mark.parametrize(
    ("size", "objectives"),
    [
        ("fashion32", {"denoising", *GRID} - {"model-guidance"}),
        ("fashion32-small", {"mclr", "ccdpo", "cca"}),
    ],
)
def test_every_cell_of_the_table_can_be_run(size, objectives):
    """K = 1, 3, 7 of MCLR among them on a GPU, judged while trying on fewer samples."""
    run = replace(get_recipe(f"{size}-table"), data="fashion32.zip", init="base", outdir=Path("out"))
    settings = every_setting(run.table["grid"], run.table["ablations"])
    assert {objective for objective, _ in settings} == objectives
    for objective, options in settings:
        for tried in (True, False):
            cell = cell_config(run, objective, options, 0, tried=tried)
            check_options(cell, 1)
            assert cell.eval.num_samples == run.eval.num_samples // (2 if tried else 1)
    tried_k = {options.get("num_negatives") for objective, options in settings if objective == "mclr"}
    assert size != "fashion32" or tried_k == {None, 1, 3, 7}
