"""The report's page: what it shows for each kind of run, whatever the format of its files."""

import json
import re
from base64 import b64decode

import pytest
from run_folders import (
    METRICS,
    Page,
    figures,
    in_todays_format,
    make_row,
    make_run,
    make_summary,
)

from mclr_fast.reports import run_data as report_data
from mclr_fast.reports.run_page import write_report
from mclr_fast.runtime import formats

CHARTS = {"tradeoff-fd-is", "tradeoff-precision-recall", "loss-mclr", "loss-denoising", "energies"}
CHARTS |= {"metric-fd", "metric-is", "metric-precision", "metric-recall"}


@pytest.fixture(scope="module", params=[1, formats.SUMMARY_FORMAT])
def full(tmp_path_factory, request):
    names = ["base", "cfg-1.5", "mclr-320", "mclr-640", "mclr-960"]
    outdir = make_run(tmp_path_factory.mktemp("runs") / "full", make_summary(), grid=names)
    if request.param > 1:
        in_todays_format(outdir)
    return outdir, Page(write_report(outdir))


def test_full_run_in_one_sentence(full):
    _, page = full
    assert (
        "MCLR, 640 images seen: Fréchet distance (FD) 0.410 → 0.290, "
        "at 23 network calls a sample instead of guidance's 46."
    ) in page.text
    assert "-0.120 [-0.150, -0.090], lower" in page.text
    assert "-0.010 [-0.100, +0.080], not told apart" in page.text
    assert "Guidance at its best FD, CFG 1.5" in page.text
    assert "chosen by FD on these same samples" in page.text


def test_full_run_is_one_file_with_every_figure(full):
    outdir, page = full
    assert figures(outdir) == CHARTS | {"grid-1", "grid-2", "grid-1-all", "grid-2-all"}
    assert len(page.images) == len(figures(outdir))
    prefix = "data:image/png;base64,"
    embedded = {b64decode(image["src"].removeprefix(prefix)) for image in page.images}
    assert embedded == {path.read_bytes() for path in (outdir / "figures").iterdir()}
    assert all(image["alt"] for image in page.images)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not [path for path in outdir.rglob(".*")]


def test_table_orders_rows_and_marks_the_best(full):
    table = re.search(r"<table>.*?</table>", (full[0] / "report.html").read_text("utf-8"), re.S)[0]
    names = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert names == [
        "Real images",
        "Base",
        "CFG 1.5",
        "CFG 3",
        "Control (denoising)",
        "MCLR",
        "MCLR ★ best FD",
        "MCLR",
    ]
    assert table.count('class="best"') == 1


def test_tiles_say_which_way_is_better(full):
    """Recall's loss cannot be read as a gain: each metric has its verdict, beside a sample's cost."""
    html = (full[0] / "report.html").read_text("utf-8")
    found = re.findall(
        r'<div class="tile"><span>(.*?)</span><b>(.*?)</b><span class="(.*?)">(.*?)</span>', html
    )
    assert [(title[:2], verdict, remark) for title, _, verdict, remark in found] == [
        ("FD", "better", "better"),
        ("IS", "better", "better"),
        ("Pr", "better", "better"),
        ("Re", "", "the same"),
        ("Ne", "", "guidance: 46"),
    ]
    assert found[0][1].split() == ["0.410", "→", "0.290"] and found[-1][1] == "23"


def test_the_page_has_contents_and_knows_the_dark(full):
    html = (full[0] / "report.html").read_text("utf-8")
    links = re.findall(r'<a href="#(.*?)">', html)
    assert links == re.findall(r'<h2 id="(.*?)">', html) and "numbers" in links
    assert "prefers-color-scheme: dark" in html and 'content="light dark"' in html


def test_words_are_defined_before_the_table(full):
    html = (full[0] / "report.html").read_text("utf-8")
    assert html.index("Fréchet distance between") < html.index("<table>")


def test_four_rows_are_seen_and_all_are_folded(full):
    """The base, guidance at its best FD, the kept checkpoint, the last one; every row behind a click."""
    run = report_data.read_run(full[0])
    assert [entry.key for entry in run.leading_grid] == ["base", "cfg-1.5", "mclr-640", "mclr-960"]
    html = (full[0] / "report.html").read_text("utf-8")
    folded = re.search(r"<details>.*?</details>", html, re.S)[0]
    assert folded.count("<img") == 2 and "MCLR, 320 images" in folded


def test_one_logged_step_makes_no_empty_plot(tmp_path):
    make_run(tmp_path, make_summary(rows=[], best=None, turned_at=None, comparison={}), log=False)
    line = {"arm": "mclr", "images_seen": 32, "loss": 3670.1, "positive": 3670.2, "negative": 3670.3}
    (tmp_path / "log.jsonl").write_text(json.dumps(line) + "\n")
    assert not Page(write_report(tmp_path)).images


def test_the_turn_of_fd_has_its_interval(tmp_path):
    summary = make_summary(comparison={"base": [-0.12, -0.15, -0.09], "end": [-0.02, -0.05, 0.01]})
    page = Page(write_report(make_run(tmp_path, summary, log=False)))
    assert "difference from the last [95% interval]: -0.020 [-0.050, +0.010], not told apart" in page.text


def test_the_command_the_model_and_the_settings_are_there(tmp_path):
    summary = make_summary(command="torchrun -m mclr_fast.train --lr 2e-4")
    make_run(tmp_path, summary, log=False)
    (tmp_path / "config.json").write_text('{"train.lr": 0.0002}')
    model = tmp_path / "checkpoints" / "best"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"base": {"model": "base/", "sha256": "ab12"}, "licence": "MIT"}')
    page = Page(write_report(tmp_path))
    for words in (
        "torchrun -m mclr_fast.train --lr 2e-4",
        f"python -m mclr_fast.sample {tmp_path} --seeds 0-19 --grid",
        f"Model {model}",
        "Base base/ (SHA-256 ab12)",
        "Licence MIT",
        "train.lr 0.0002",
    ):
        assert words in re.sub(r"\s+", " ", page.text), words


def test_run_without_evaluations(tmp_path):
    summary = make_summary(rows=[], best=None, turned_at=None, comparison={})
    page = Page(write_report(make_run(tmp_path, summary)))
    assert "MCLR, 960 images seen: no evaluation yet." in page.text
    assert figures(tmp_path) == {"loss-mclr", "loss-denoising", "energies"}
    assert "table" not in page.tags


def test_run_whose_metrics_are_missing(tmp_path):
    summary = make_summary(best=None, turned_at=None, comparison={})
    for row in summary["rows"]:
        row |= dict.fromkeys(METRICS)
    page = Page(write_report(make_run(tmp_path, summary, log=False)))
    assert "no metric was measured" in page.text
    assert not page.images
    assert page.tags.count("tr") == len(summary["rows"]) + 1


def test_base_training(tmp_path):
    rows = [make_row("denoising", n, fd=fd) for n, fd in ((100, 9.0), (200, 0.5), (300, 0.45))]
    summary = make_summary(
        recipe="mnist16-base", objective="denoising", rows=rows, best=rows[-1], comparison={}
    )
    page = Page(write_report(make_run(tmp_path, summary, log=False)))
    assert "Denoising, 300 images seen: FD 0.450" in page.text
    assert "200 to 300 images: 0.500 → 0.450 (-10%)" in page.text
    assert "metric-fd" in figures(tmp_path) and "tradeoff-fd-is" not in figures(tmp_path)
    assert "Control" not in page.text


@pytest.mark.parametrize("rewritten", [False, True])
def test_proof_leads_with_its_seeds(tmp_path, rewritten):
    entries = [
        {
            "seed": seed,
            "base": make_row("base"),
            "denoising": make_row("denoising", 960, fd=0.4),
            "mclr": make_row("mclr", 640, fd=0.29, precision=0.83),
            "fd_minus_base": [-0.12, -0.15, -0.09],
            "fd_minus_denoising": [-0.11, -0.14, 0.01 if seed == 2 else -0.08],
            "passed": seed != 2,
        }
        for seed in range(3)
    ]
    rows = [make_row("base"), *(entry["mclr"] for entry in entries)]
    summary = make_summary(rows=rows, best=None, seed=None, proof=entries)
    make_run(tmp_path, summary, log=False)
    if rewritten:
        in_todays_format(tmp_path)
    page = Page(write_report(tmp_path))
    assert "MCLR passed with 2 of 3 seeds; on average FD 0.410 → 0.290" in page.text
    assert "2 not passed 0.410 0.400 0.290 -0.120 [-0.150, -0.090] -0.110" in page.text
    assert "chosen by FD on other sampling seeds" in page.text
    assert "seed 0, 1, 2" in page.text
    assert not page.images  # its rows are of three runs: no curve joins them


def test_a_grid_that_is_seen_whole_is_not_drawn_again(tmp_path):
    outdir = make_run(tmp_path, make_summary(), log=False, grid=["base", "mclr-640"])
    page = Page(write_report(outdir))
    assert {name for name in figures(outdir) if name.startswith("grid")} == {"grid-1", "grid-2"}
    assert "All rows" not in page.text


@pytest.mark.parametrize(("name", "none"), [("cfg-1.5", "1 = none"), ("varcfg-1.5", "0 = none")])
def test_the_strength_that_is_none_is_the_familys(tmp_path, name, none):
    summary = make_summary(rows=[make_row("base"), make_row(name, nfe=46)], best=None)
    page = Page(write_report(make_run(tmp_path, summary, log=False)))
    assert f"guidance of that strength ({none})" in page.text
    assert "CFG 1.5" in page.text
