"""Several runs on one page: names, a look for each, one table; what cannot be compared is refused."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from mclr_fast.report import main
from mclr_fast.reports.several_page import COLORS, MARKERS, _looks, draw
from mclr_fast.reports.several_runs import (
    alike,
    bases,
    different_measures,
    different_options,
    read_runs,
    repeated,
)
from mclr_fast.reports.words import FD
from mclr_fast.runtime.formats import SUMMARY_FORMAT

ZOO = Path(__file__).parents[1] / "golden" / "zoo"


@pytest.fixture
def runs(tmp_path):
    """The zoo's finished run, and a copy that learned at another rate and got further."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        for name in ("summary.json", "config.json"):
            shutil.copyfile(ZOO / "finished" / name, folder / name)

    def better(summary):
        for row in (*summary["rows"], summary["best"]):
            row["fd"] -= 2 * (row["name"] == "mclr")
        summary["seed"] = 7

    change(other, better)
    change(other, lambda config: config.update({"train.lr": 0.5}), "config.json")
    return one, other


def change(folder, function, name="summary.json"):
    content = json.loads((folder / name).read_text())
    function(content)
    (folder / name).write_text(json.dumps(content))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert done.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_the_page_of_two_runs(runs, tmp_path, capsys):
    main([str(run) for run in runs] + ["--outdir", str(tmp_path / "compared")])
    page = tmp_path / "compared" / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    text = unescape(page.read_text(encoding="utf-8"))
    pictures = {path.stem for path in (tmp_path / "compared" / "figures").iterdir()}
    tradeoffs = {"runs-fd-is", "runs-precision-recall"}
    assert pictures == tradeoffs | {"runs-fd", "runs-is", "runs-precision", "runs-recall"}
    assert text.count("data:image/png;base64") == 6 and "<script" not in text and "http" not in text
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr.*?</tr>", text)]
    named = [row[:4] for row in rows if row[0] in ("one", "other")]
    dash = "\N{EN DASH}"
    assert named == [
        [name, model, seed, seen]
        for name, seed in (("one", "0"), ("other", "7"))
        for model, seen in (
            ("Base", dash),
            ("CFG 1.25", dash),
            ("Control (denoising)", "192"),
            ("MCLR ★ best FD", "64"),
        )
    ]
    assert text.count('<tr class="best">') == 1 and '<tr class="best"><th scope="row">other' in text
    assert ["train.lr", "0.0001", "0.5"] in rows and not any(row[0] == "seed" for row in rows)
    assert "Not measured alike" not in text and not [path for path in tmp_path.rglob(".*")]


def test_what_runs_share_is_drawn_once(runs):
    both = read_runs(runs)
    assert [names for _, names in alike(both)] == [names for _, names in bases(both)] == [["one", "other"]]
    change(runs[1], lambda summary: summary["rows"][1].update(fd=1.0))
    assert [names for _, names in bases(read_runs(runs))] == [["one"], ["other"]]


def test_pictures_say_what_they_show(runs):
    pictures = {p.name: p for group in draw(read_runs(runs)).values() for p in group}
    assert pictures["runs-fd"].alt == ("FD over images seen: one from 42.4 to 42.5; other from 42.4 to 40.5.")
    assert "over training: one, other" in pictures["runs-fd-is"].alt


def test_every_run_has_a_look_of_its_own(runs):
    many = read_runs(runs)[:1] * 40
    assert len({(color, marker) for _, color, marker in _looks(many)}) == 40
    assert len(set(COLORS)) == len(set(MARKERS)) == 8


def test_names_are_as_short_as_they_can_be(tmp_path, runs):
    seeds = [tmp_path / "seeds" / name / "seed-0" for name in ("a", "b")]
    for folder in seeds:
        shutil.copytree(ZOO / "proof" / "seed-0", folder)
    assert [run.name for run in read_runs(seeds)] == ["a/seed-0", "b/seed-0"]
    assert [run.name for run in read_runs([runs[0], seeds[0]])] == ["one", "seed-0"]


def test_measures_that_differ_are_said(runs, tmp_path):
    change(runs[1], lambda summary: summary["protocol"].update(samples=50))
    assert different_measures(read_runs(runs)) == ["samples: 40 (one), 50 (other)"]


def test_a_folder_without_options_has_none_that_differ(runs):
    (runs[1] / "config.json").unlink()
    assert different_options(read_runs(runs)) == {}


def test_runs_of_other_protocols_are_refused(runs, capsys):
    def by_dino(summary):
        for row in (*summary["rows"], summary["best"]):
            row |= {"chosen_by": "fd-dinov2", "metrics": {"fd-dinov2": {"fd": 1.0}}, "unguided": 1.0}
            row |= {"kind": "trained", "guidance": 1.0}
        summary |= {"format": SUMMARY_FORMAT, "kind": "run"}

    change(runs[1], by_dino)
    assert "one was judged by mnist16 and other by fd-dinov2" in refused(capsys, *runs)


def test_what_is_no_run_is_refused(runs, tmp_path, capsys):
    assert "is a proof, of several runs: name its seeds' folders" in refused(capsys, runs[0], ZOO / "proof")
    assert "is named twice" in refused(capsys, runs[0], runs[0])
    assert "has no summary.json" in refused(capsys, runs[0], tmp_path)
    assert "is a run's folder" in refused(capsys, *runs, "--outdir", runs[0])
    assert "one run's lies in its own folder" in refused(capsys, runs[0], "--outdir", tmp_path / "x")
    assert not (tmp_path / "compared").exists()


def test_runs_of_several_seeds_have_a_spread(runs, tmp_path, capsys):
    """Where the seed alone differs; of other options, or the same seed twice, there is none."""
    assert repeated(read_runs(runs)) == []
    change(runs[1], lambda config: config.update({"train.lr": 1e-4, "seed": 7}), "config.json")
    change(runs[0], lambda config: config.update({"train.lr": 1e-4, "seed": 0}), "config.json")
    (group,) = repeated(read_runs(runs))
    one, other = (run.run.best.fd for run in read_runs(runs))
    assert group.names == ["one", "other"] and group.seeds == [0, 7] and one != other
    mean, deviation = group.spread(FD)
    assert mean == pytest.approx((one + other) / 2) and deviation == pytest.approx(abs(one - other) / 2**0.5)
    main([str(run) for run in runs] + ["--outdir", str(tmp_path / "compared")])
    text = unescape((tmp_path / "compared" / "report.html").read_text(encoding="utf-8"))
    assert "Over training seeds" in text and f"{FD.text(mean)} ± {FD.text(deviation)}" in text
    change(runs[1], lambda summary: summary.update(seed=0))
    assert repeated(read_runs(runs)) == []
