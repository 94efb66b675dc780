"""The embedded runs of VAR, small: a base from scratch on the shipped VQVAE's tokens, then each objective."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mclr_fast.evaluation.cfg_rows import stored_cfg_rows
from mclr_fast.experiments.run import Run
from mclr_fast.models import load, read_config, resolve
from mclr_fast.recipes import get_recipe
from mclr_fast.recipes.mnist16_var import CFG_SCALES, NET
from mclr_fast.reports.table_page import markdown
from mclr_fast.reports.table_summary import TableSummary
from mclr_fast.runtime import formats
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

ROOT = Path(__file__).parents[2]
SMALL = dict(eval_every=32, num_samples=20, sample_batch=20, grid_noises=1)


def small(name, folder, **changes):
    run = get_recipe(name)
    train = replace(run.train, duration=32, batch_size=16, log_every=16, warmup_images=0, precision="fp32")
    found = replace(run, train=train, eval=replace(run.eval, **SMALL), device="cpu", outdir=folder)
    return replace(found, **changes)


def execute(config):
    return Run(config, Ranks("cpu"), StopRequest()).execute()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a base's run."""
    folder = tmp_path_factory.mktemp("base")
    run = small("mnist16-var-base", folder)
    execute(replace(run, net=NET | {"depth": 1, "embed_dim": 32, "num_heads": 1}))
    return folder


def test_a_base_says_how_it_is_sampled(base):
    said = load(base).description
    assert said["sampler"] == {"top_k": 0, "top_p": 0.0, "classes": "in turn"} and said["null_label"]
    assert said["net"]["vqvae"] == "mnist16-vqvae" and said["made_by"] == "mnist16-var-base"


def test_the_default_run(base, tmp_path):
    run = small("mnist16-var", tmp_path, init=str(base))
    scales = dict(cfg_scales=(1.0,), best_cfg_scales=(0.5,), dial=(0.5,))
    summary = execute(replace(run, eval=replace(run.eval, **scales)))
    rows = {row.name: row for row in summary.rows}
    assert [row.kind for row in summary.rows][:4] == ["real", "base", "guidance", "control"]
    assert {"base", "varcfg-1", "denoising", "mclr", "mclr-varcfg-0.5", "mclr-strength-0.5"} < rows.keys()
    assert rows["base"].nfe == 4 and rows["varcfg-1"].nfe == 8


@pytest.mark.parametrize("objective", ["cca", "ccdpo"])
def test_other_objectives(base, tmp_path, objective):
    run = small("mnist16-var-table", tmp_path, init=str(base), table=None, proof_seeds=())
    assert set(get_recipe("mnist16-var-table").table["grid"]) == {"mclr", "cca", "ccdpo"}
    options = replace(run.objective, objective=objective)
    summary = execute(replace(run, objective=options, eval=replace(run.eval, cfg_scales=())))
    assert summary.best.name == objective and summary.best.fd > 0


def test_the_shipped_base_is_of_its_recipe():
    said = read_config("mnist16-var-base")
    assert {name: said["net"][name] for name in NET} == NET
    assert said["made_by"] == "mnist16-var-base" and said["null_label"]


def test_shipped_guided_rows_belong_to_the_default_run(tmp_path):
    """They are what that run makes of itself: the stored run sampled them."""
    run = Run(
        replace(get_recipe("mnist16-var"), outdir=tmp_path / "run", device="cpu"), Ranks("cpu"), StopRequest()
    )
    protocol = run.evaluator().description()
    stored = stored_cfg_rows(resolve("mnist16-var-base"), run.base_sha256, protocol)
    assert list(stored) == list(CFG_SCALES) and all(row.nfe == 8 for row in stored.values())
    made = json.loads((ROOT / "docs/results/mnist16-var.json").read_text())["rows"]
    made = {row["guidance"]: row["metrics"] for row in made if row["kind"] == "guidance"}
    assert {guidance: row.metrics for guidance, row in stored.items()} == made


def test_the_page_has_the_stored_run_and_the_bases_curve():
    page = (ROOT / "docs" / "var.md").read_text()
    for row in json.loads((ROOT / "docs/results/mnist16-var.json").read_text())["rows"]:
        if row["kind"] in ("real", "base", "guidance", "control", "trained"):
            found = row["metrics"]["mnist16"]
            cells = f"{found['is']:.2f} | {found['precision']:.3f} | {found['recall']:.3f}"
            assert f"| {found['fd']:.3f} | " in page and cells in page, row["name"]
    curve = json.loads((ROOT / "mclr_fast/assets/mnist16-var-base/curve.json").read_text())["rows"]
    fd = [f"{row['metrics']['mnist16']['fd']:.3f}" for row in curve if row["name"] == "denoising"]
    assert f"{', '.join(fd[:-1])} and {fd[-1]}" in page


def test_the_page_has_the_stored_table():
    content = json.loads((ROOT / "docs/results/mnist16-var-table.json").read_text())
    table = markdown(TableSummary.from_json(formats.summary(content)))
    assert table in (ROOT / "docs" / "var.md").read_text()
