"""The report: what it says and shows for each kind of run, whatever the format of its files.

Folders are written as of format 1 here, whose rows are short; `in_todays_format` writes them again.
"""

import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mclr_fast.report import main
from mclr_fast.reports import run_data as report_data
from mclr_fast.reports import run_text as report_text
from mclr_fast.reports.figures.grid import draw_grid
from mclr_fast.reports.figures.style import styled
from mclr_fast.reports.grid import GridEntry, write_grid
from mclr_fast.reports.run_page import write_report
from mclr_fast.reports.summary import Summary
from mclr_fast.reports.words import FD
from mclr_fast.runtime import formats

METRICS = ("fd", "fd_heldout", "is", "precision", "recall", "accuracy")


def make_row(name, images_seen=0, nfe=23, **metrics):
    values = {"fd": 0.41, "is": 8.2, "precision": 0.79, "recall": 0.95, "accuracy": 0.9}
    values["fd_heldout"] = 0.45
    return {
        "name": name,
        "images_seen": images_seen,
        "nfe": nfe,
        "samples": 1000,
        **{key: (values | metrics)[key] for key in METRICS},
    }


def make_summary(**changes):
    trained = [
        make_row("mclr", n, fd=fd, precision=0.83, **{"is": 8.6})
        for n, fd in ((320, 0.35), (640, 0.29), (960, 1.4))
    ]
    guided = [make_row("cfg-3", nfe=46, fd=0.9), make_row("cfg-1.5", nfe=46, fd=0.31)]
    control = [make_row("denoising", 960, fd=0.4)]
    real = make_row("real", nfe=None, fd=0.05)
    summary = {
        "recipe": "mnist16",
        "objective": "mclr",
        "seed": 0,
        "images_seen": 960,
        "seconds": 312.4,
        "rows": [real, make_row("base"), *guided, *control, *trained],
        "best": trained[1],
        "turned_at": 960,
        "comparison": {"base": [-0.12, -0.15, -0.09], "denoising": [-0.01, -0.1, 0.08]},
        "protocol": {
            "name": "mnist16-classifier",
            "reference": "3,000 training digits",
            "samples": 1000,
            "seeds": [0, 999],
            "num_steps": 12,
            "k": 3,
        },
        "versions": {"mclr_fast": "0.1.0", "base_sha256": "ab" * 32},
    }
    return summary | changes


def make_run(outdir, summary, *, log=True, grid=None):
    outdir.mkdir(exist_ok=True)
    (outdir / "summary.json").write_text(json.dumps(summary))
    if log:
        lines = [
            {"arm": arm, "images_seen": n, "loss": 1 / n, "positive": 5.0, "negative": 6.0}
            for arm in ("mclr", "denoising")
            for n in (32, 64, 96)
        ]
        (outdir / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if grid:
        images = np.zeros((2, 3, 1, 4, 4), np.uint8)
        np.savez(outdir / "grid.npz", order=np.array(grid), **dict.fromkeys(grid, images))
    return outdir


def in_todays_format(outdir):
    """Write summary.json and grid.npz again, as runs write them now."""
    run = report_data.read_run(outdir)
    (outdir / "summary.json").write_text(json.dumps(run.summary.to_json()))
    write_grid(outdir, run.grid)


class Page(HTMLParser):
    """The page's visible text, its tags and its images."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.images, self.hidden = [], [], [], False
        self.feed(page.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", "".join(self.words)).replace("\N{MINUS SIGN}", "-")

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.hidden = tag == "style"
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        self.words.append("" if self.hidden else data + " ")


def headline_of(outdir):
    return re.sub(r"\s+", " ", report_text.headline(report_data.read_run(outdir)))


def figures(outdir):
    return {path.stem for path in (outdir / "figures").iterdir()}


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


def test_a_metric_that_fell_is_called_worse(tmp_path):
    best = make_row("mclr", 320, fd=0.3, recall=0.9)
    run = report_data.read_run(make_run(tmp_path, make_summary(rows=[make_row("base"), best], best=best)))
    assert {tile.title[:6]: tile.verdict for tile in report_text.tiles(run)}["Recall"] == "worse"


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


def test_a_classifiers_verdicts_stand_below_the_images(tmp_path):
    """Kept in grid.npz; in words on the page; nothing of them without a classifier."""
    images = np.zeros((1, 3, 1, 4, 4), np.uint8)
    entry = GridEntry("base", "base", 0, 1.0, None, images, np.array([[0, 1, 7]]))
    make_run(tmp_path, make_summary(), log=False)
    write_grid(tmp_path, [entry, replace(entry, name="mclr", kind="trained", images_seen=640, verdicts=None)])
    run = report_data.read_run(tmp_path)
    assert run.grid[0].verdicts.tolist() == [[0, 1, 7]] and run.grid[1].verdicts is None
    assert "the class asked for, and what the classifier" in report_text.grid_note(run)
    with styled():
        with_verdicts = draw_grid(run, 0, run.grid)
        without = draw_grid(run, 0, [replace(entry, verdicts=None) for entry in run.grid])
    assert with_verdicts.png != without.png and not with_verdicts.is_chart


def test_energies_are_explained_where_they_rise(tmp_path):
    make_run(tmp_path, make_summary())
    lines = [
        {"arm": "mclr", "images_seen": n, "loss": 0.0, "positive": 1.0 + n, "negative": 1.5 + 3 * n}
        for n in range(4)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = report_text.loss_note(report_data.read_run(tmp_path))
    assert "Wrong minus right: 0.5 over the first tenth of the log, 6.5 over the last." in text
    assert "rewards the difference alone" in text


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


def test_says_so_when_fd_did_not_improve(tmp_path):
    worse = make_row("mclr", 320, fd=0.52)
    rows = [make_row("base"), worse]
    sentence = headline_of(make_run(tmp_path, make_summary(rows=rows, best=worse)))
    assert sentence.startswith("MCLR did not lower FD in this run")
    assert "Fréchet distance (FD) 0.410 → 0.520" in sentence


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


def test_nan_counts_as_missing(tmp_path):
    rows = [make_row("base"), make_row("mclr", 320, fd=float("nan"))]
    sentence = headline_of(make_run(tmp_path, make_summary(rows=rows, best=None)))
    assert sentence.startswith("MCLR, 320 images seen: IS 8.20 → 8.20, precision")


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


def test_a_line_logged_again_after_a_resume_replaces_the_first(tmp_path):
    make_run(tmp_path, make_summary())
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"arm": "mclr", "images_seen": 64, "loss": 7.0}\n{"arm": "mcl')
    log = report_data.read_run(tmp_path).log["mclr"]
    assert [line.images_seen for line in log] == [32, 64, 96]
    assert log[1].loss == 7.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0.4096, "0.410"), (4.04, "4.04"), (12.4, "12.4"), (712, "712")],
)
def test_fd_text(value, text):
    assert FD.text(value) == text


def test_door_writes_the_page(tmp_path, capsys):
    make_run(tmp_path, make_summary(recipe="<b>", rows=[]), log=False)
    main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "<b>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no summary.json"),
        ("{", "not JSON"),
        ("[]", "not a run's summary"),
        ('{"recipe": "a", "objective": "mclr", "rows": [{}]}', "not a run's summary"),
        ('{"recipe": "a", "objective": "mclr", "rows": [], "format": 3}', "upgrade mclr_fast"),
    ],
)
def test_door_refuses_a_folder_without_a_summary_it_knows(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error and error.count("\n") == 1


def test_a_failed_write_leaves_the_old_page_and_one_line(tmp_path, capsys):
    make_run(tmp_path, make_summary(rows=[]), log=False)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    assert "cannot write" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "report.html"}


def test_a_grid_that_is_seen_whole_is_not_drawn_again(tmp_path):
    outdir = make_run(tmp_path, make_summary(), log=False, grid=["base", "mclr-640"])
    page = Page(write_report(outdir))
    assert {name for name in figures(outdir) if name.startswith("grid")} == {"grid-1", "grid-2"}
    assert "All rows" not in page.text


def test_a_long_grid_is_thinned_and_keeps_the_best(tmp_path):
    names = ["base", *(f"cfg-{g}" for g in (1.1, 1.2, 1.5, 2, 3)), *(f"mclr-{n}" for n in range(10, 110, 10))]
    summary = Summary.from_json(formats.summary(make_summary(best=make_row("mclr", 20))))
    make_run(tmp_path, summary.to_json(), log=False, grid=names)
    shown = [entry.key for entry in report_data.read_run(tmp_path).shown_grid]
    assert shown[0] == "base"
    assert [name for name in shown if "cfg" in name] == ["cfg-1.1", "cfg-1.2", "cfg-2", "cfg-3"]
    assert [name for name in shown if "mclr" in name] == [
        "mclr-10",
        "mclr-20",
        "mclr-40",
        "mclr-70",
        "mclr-100",
    ]


@pytest.mark.parametrize(("name", "none"), [("cfg-1.5", "1 = none"), ("varcfg-1.5", "0 = none")])
def test_the_strength_that_is_none_is_the_familys(tmp_path, name, none):
    summary = make_summary(rows=[make_row("base"), make_row(name, nfe=46)], best=None)
    page = Page(write_report(make_run(tmp_path, summary, log=False)))
    assert f"guidance of that strength ({none})" in page.text
    assert "CFG 1.5" in page.text
