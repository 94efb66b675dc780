"""The paper's Table 1: the file is what the paper prints; a run's rows stand beside it where they compare."""

import json
import re
from html import unescape

import pytest

from mclr_fast.evaluation.rows import Row
from mclr_fast.recipes import RECIPES
from mclr_fast.reports.paper_table import own_rows, paper_table
from mclr_fast.reports.run_data import read_run
from mclr_fast.reports.run_page import write_report
from mclr_fast.reports.summary import Summary, write_summary

PROTOCOLS = ("fd-dinov2", "pr-inception", "is")


def row(name, kind, fd, *, samples=50_000, nfe=63, protocols=PROTOCOLS, **more):
    metrics = {"fd-dinov2": {"fd": fd}, "pr-inception": {"precision": 0.7, "recall": 0.6}, "is": {"is": 61.0}}
    chosen = {"own": {"fd": fd, "is": 8.0, "precision": 0.5, "recall": 0.5}}
    measured = {name: metrics[name] for name in protocols} or chosen
    return Row(name, kind, more.pop("images_seen", 0), nfe, samples, measured, next(iter(measured)), **more)


def write_run(folder, rows, recipe="edm2-img64-s", objective="mclr", best=None):
    """A folder with a made-up summary; -> the text of its report."""
    plain = dict(turned_at=None, stopped=None, skipped_batches={}, classifier=None, comparison={})
    plain |= dict(grid_seeds=None, protocol=None, versions={})
    summary = Summary(recipe, objective, "", 0, 2**20, 3600.0, rows, best, **plain)
    folder.mkdir(exist_ok=True)
    write_summary(folder, summary)
    return write_report(folder).read_text(encoding="utf-8")


def section(page):
    found = re.search(r'<h2 id="the-paper-s-table-1">.*?</h2>(.*?)<h2', page, re.DOTALL)
    return found and unescape(found[1])


def lines(html):
    """Each row of the table as its cells."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_values_are_those_of_the_printed_lines():
    table = paper_table()
    assert [(group.base, len(group.rows)) for group in table.groups] == [
        ("EDM2-S", 6),
        ("VAR-d24", 5),
        ("EDM2-L", 6),
    ]
    for paper in (row for group in table.groups for row in group.rows):
        *_, nfe, fd, precision, recall, score = paper.line.split()
        assert [str(paper.nfe), *(c.text(paper.values[c.key]) for c in table.columns)] == [
            nfe,
            fd,
            precision,
            recall,
            score,
        ]
    assert {group.recipe for group in table.groups} - {None} < set(RECIPES)


def test_a_run_s_rows_stand_below_the_paper_s(tmp_path):
    best = row("mclr", "trained", 53.21, images_seen=2**19)
    rows = [
        row("base", "base", 96.0),
        row("cfg-1.5", "guidance", 50.0, nfe=126, guidance=1.5),
        row("cfg-1.7", "guidance", 44.0, nfe=126, guidance=1.7),
        row("denoising", "control", 97.0, images_seen=2**20),
        best,
        row("mclr", "trained", 60.0, images_seen=2**20),
    ]
    html = section(write_run(tmp_path, rows, best=best))
    table = lines(html)
    assert ["EDM2-S", "the paper", "63", "95.20", "0.705", "0.614", "60.43"] in table
    assert table[1:3] == [table[1], ["Base", "this run", "63", "96.00", "0.700", "0.600", "61.00"]]
    assert table[-3:] == [
        ["+ MCLR", "the paper", "63", "52.69", "0.800", "0.505", "90.68"],
        ["+ MCLR", "this run", "63", "53.21", "0.700", "0.600", "61.00"],
        ["+ Control (denoising)", "this run", "63", "97.00", "0.700", "0.600", "61.00"],
    ]
    assert table[3][0] == "+ CFG" and table[4][:4] == ["+ CFG 1.7", "this run", "126", "44.00"]
    assert html.count('class="best"') == 4
    assert "FD-DINOv2 96.00 here, 95.20 in the paper (+0.8%)" in html
    assert "FD grows" not in html and "Where network calls differ" not in html


def test_what_does_not_compare_is_said(tmp_path):
    rows = [row("base", "base", 96.0, samples=5000, nfe=23), row("cca", "trained", 70.0, nfe=23)]
    html = section(write_run(tmp_path, rows, "edm2-img64-s-search", "cca", best=rows[1]))
    assert ["+ CCA", "this run", "23", "70.00", "0.700", "0.600", "61.00"] in lines(html)
    assert "Rows of 5,000 samples: FD grows as samples get fewer" in html
    assert "Where network calls differ, so does the sampler" in html
    assert "Compare the bases first" in html


def test_other_protocols_metrics_are_not_taken_for_the_paper_s(tmp_path):
    rows = [row("base", "base", 4.0, protocols=()), row("mclr", "trained", 3.0, protocols=())]
    html = section(write_run(tmp_path, rows, best=rows[1]))
    assert ["Base", "this run", "63", *["\N{EN DASH}"] * 4] in lines(html)
    assert "measured by fd-dinov2, pr-inception and is, and no row of this run was" in html


def test_a_run_without_rows_shows_the_paper_s(tmp_path):
    html = section(write_run(tmp_path, [], "edm2-img512-l"))
    assert len(lines(html)) == 7 and "EDM2-L" in html
    assert not any("this run" in cells for cells in lines(html))


def test_another_base_of_the_same_images_is_said_to_be_one(tmp_path):
    html = section(write_run(tmp_path, [row("base", "base", 60.0)], "edm2-img512-xxl"))
    assert "The paper's base is EDM2-L, edm2-img512-xxl's another: this run's rows" in html


@pytest.mark.parametrize("recipe", ["mnist16", "edm2-img32", "tiny"])
def test_other_runs_show_nothing_of_it(tmp_path, recipe):
    assert section(write_run(tmp_path, [row("base", "base", 60.0)], recipe)) is None


def test_a_row_that_a_kept_folder_lacks_is_left_out(tmp_path):
    write_run(tmp_path, [row("base", "base", 60.0)])
    assert set(own_rows(read_run(tmp_path))) == {"base"}
    assert json.loads((tmp_path / "summary.json").read_text())["recipe"] == "edm2-img64-s"
