"""`python -m mclr_fast.train` as a user calls it, on a tiny model and tiny data."""

import contextlib
import json
import os
import resource
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from run_log import column
from safetensors.torch import load_file, save_file

from mclr_fast import evaluate, sample, train
from mclr_fast.models import describe, load
from mclr_fast.models.edm2 import Precond
from mclr_fast.recipes import RECIPES
from mclr_fast.runtime.logs import RunLog

NET = dict(
    img_resolution=8,
    img_channels=1,
    label_dim=4,
    model_channels=8,
    channel_mult=[1, 2],
    num_blocks=1,
    attn_resolutions=[],
    channels_per_head=8,
    logvar_channels=8,
)
BATCH = 8
QUIET = ["--eval-every", "0", "--control", "none", "--device", "cpu"]
SMALL = [*QUIET, "--batch-size", str(BATCH), "--duration", str(6 * BATCH), "--log-every", "1"]
LONG = [*SMALL, "--duration", "400"]


def write_model(folder, net_arguments):
    torch.manual_seed(0)
    net = Precond(**net_arguments)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.5)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(describe(net_arguments)))
    save_file(net.state_dict(), folder / "model.safetensors")
    return str(folder)


def write_data(folder, labels):
    (folder / "00000").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = []
    for i in range(len(labels)):
        names.append(f"00000/img{i:08d}.png")
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / names[-1])
    pairs = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return str(folder)


@pytest.fixture
def base(tmp_path):
    return write_model(tmp_path / "base", NET)


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", np.arange(24) % 4)


@pytest.fixture
def door(tmp_path, base, data, capsys):
    """Call the door in an outdir; gives (exit code, stdout, stderr)."""

    def call(*options, outdir="run", init=base, data=data, small=SMALL):
        arguments = ["--init", init, "--data", data, "--outdir", str(tmp_path / outdir), *small]
        code = train.main([*arguments, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def error_line(err):
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def final_weights(tmp_path, outdir="run"):
    return load_file(tmp_path / outdir / "checkpoints" / "final-mclr" / "model.safetensors")


def test_run_writes_what_the_api_says(door, tmp_path):
    code, out, _ = door()
    assert code == 0
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert {"recipe", "objective", "images_seen", "seconds", "rows", "best", "versions"} <= (summary.keys())
    assert summary["images_seen"] == 6 * BATCH
    assert summary["skipped_batches"] == {"mclr": 0}
    assert column(run, "images_seen").tolist() == [BATCH * (i + 1) for i in range(6)]
    assert (run / "config.json").is_file()
    assert "data:image/png;base64" in (run / "report.html").read_text()
    assert str(run / "report.html") in out
    tuned = load(run / "checkpoints" / "final-mclr")
    assert not torch.equal(tuned.unet.out_conv.weight, load(tmp_path / "base").unet.out_conv.weight)


def test_same_command_again_trains_nothing(door, tmp_path):
    door()
    before = final_weights(tmp_path)
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert door()[0] == 0
    after = final_weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run" / "log.jsonl").read_text() == log


@pytest.mark.robust("processes")
def test_sigterm_saves_and_the_same_command_resumes(door, tmp_path, monkeypatch):
    """A state is saved, and the same command ends as an uninterrupted run does."""
    assert door(outdir="whole", small=LONG)[0] == 0

    write = RunLog.write

    def write_and_be_told_to_stop(self, line):
        write(self, line)
        if line["images_seen"] == 3 * BATCH:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "write", write_and_be_told_to_stop)
        code, out, _ = door(small=LONG)
    assert code == 143
    assert "run the same command again" in out
    states = (tmp_path / "run" / "checkpoints" / "mclr-state").glob("[0-9]*/complete.json")
    assert [int(path.parent.name) for path in states] == [4 * BATCH]  # ranks look once a step
    assert door(small=LONG)[0] == 0
    whole, resumed = final_weights(tmp_path, "whole"), final_weights(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_unknown_recipe_names_the_nearest(capsys):
    assert train.main(["--recipe", "edm2-img64-x"]) == 1
    assert "edm2-img64-xs" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch-size", "1"], "batch-size"),
        (["--batch-size", "0"], "must be at least 1, not 0"),
        (["--micro-batch", "-1"], "--micro-batch"),
        (["--num-negatives", "0"], "--num-negatives"),
        (["--num-steps", "1"], "--num-steps"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--eval-every", "-5"], "--eval-every must be at least 0"),
        (["--log-every", "-1"], "--log-every must be at least 0"),
        (["--P-std", "0"], "--P-std must be above 0, not 0.0"),
        (["--sigma-min", "90"], "--sigma-min 90.0 must lie below --sigma-max"),
        (["--num-samples", "3"], "--num-samples 3 leaves samples without --neighbors 3 others"),
        (["--proof-seeds", "0", "-1"], "--proof-seeds must be at least 0, not (0, -1)"),
    ],
)
@pytest.mark.robust("arguments")
def test_impossible_numbers_are_refused_before_anything_is_made(door, tmp_path, options, words):
    """One line names the option, its range and what was given."""
    code, _, err = door(*options)
    assert code == 1
    assert words in error_line(err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        (evaluate, ["--num-samples", "0"], "--num-samples must be at least 1, not 0"),
        (evaluate, ["--num-samples", "2"], "--num-samples 2 leaves samples without --neighbors 3 others"),
        (evaluate, ["--first-seed", "-1"], "--first-seed must be at least 0, not -1"),
        (evaluate, ["--neighbors", "0"], "--neighbors must be at least 1, not 0"),
        (evaluate, ["--num-steps", "0"], "--num-steps must be at least 2, not 0"),
        (evaluate, ["--sample-batch", "0"], "--sample-batch must be at least 1, not 0"),
        (sample, ["--sample-batch", "-1"], "--sample-batch must be at least 1, not -1"),
        (sample, ["--num-steps", "1"], "--num-steps must be at least 2, not 1"),
        (sample, ["--sigma-min", "0"], "--sigma-min must be above 0, not 0.0"),
        (sample, ["--guidance", "nan"], "--guidance must be finite, not nan"),
        (sample, ["--seeds=-1"], "'-1' is no list of integers"),
        (sample, ["--labels", "5-3"], "'5-3' is no list of integers"),
    ],
)
def test_the_other_doors_refuse_impossible_numbers(base, capsys, module, options, words):
    assert module.main([base, *options, "--device", "cpu"]) == 1
    assert words in error_line(capsys.readouterr().err)


def test_missing_model_and_data(door, tmp_path):
    code, _, err = door(init=str(tmp_path / "bas"))
    assert code == 1
    assert "Nearest names: base" in error_line(err)
    assert "mnist16-base" in err
    code, _, err = door(data=str(tmp_path / "dat"))
    assert code == 1
    assert "near it: data" in error_line(err)
    assert not (tmp_path / "run").exists()


def test_checkpoint_whose_shapes_differ(door, tmp_path):
    folder = tmp_path / "wide"
    write_model(folder, {**NET, "model_channels": 16})
    (folder / "config.json").write_text(json.dumps(describe(NET)))
    code, _, err = door(init=str(folder))
    assert code == 1
    assert "[8, 8, 3, 3]" in error_line(err) or "in the network" in error_line(err)


def test_labels_out_of_range(door, tmp_path):
    code, _, err = door(data=write_data(tmp_path / "more", np.arange(24) % 7))
    assert code == 1
    assert "[0, 6]" in error_line(err)
    assert "0 to 3" in err


def test_data_of_one_class_are_refused(door, tmp_path):
    code, _, err = door(data=write_data(tmp_path / "one", np.zeros(24)))
    assert code == 1
    assert "1 distinct class" in error_line(err)


def test_images_of_another_size(door, tmp_path):
    code, _, err = door(init="mnist16-base")
    assert code == 1
    assert "1x8x8" in error_line(err)
    assert "1x16x16" in err


@pytest.mark.robust("identity")
def test_outdir_of_another_run_is_left_alone(door, tmp_path):
    """An error names the options that differ."""
    door()
    (state,) = (tmp_path / "run" / "checkpoints" / "mclr-state").iterdir()
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    code, _, err = door("--seed", "1", "--lr", "0.5")
    assert code == 1
    assert "seed: 0 there, 1 asked" in error_line(err)
    assert "train.lr" in err
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert door("--micro-batch", "4")[0] == 0  # an option that does not change the run


@pytest.mark.robust("arguments")
def test_outdir_with_foreign_files(door, tmp_path):
    """It is refused: choose another, or empty it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    code, _, err = door()
    assert code == 1
    assert "not empty" in error_line(err)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.robust("arguments")
def test_outdir_that_cannot_be(door, tmp_path):
    """One line says why."""
    (tmp_path / "file").write_text("")
    code, _, err = door(outdir="file/run")
    assert code == 1
    assert "--outdir" in error_line(err)


@contextlib.contextmanager
def file_size_limit(num_bytes):
    """Writes past num_bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.robust("file systems")
def test_full_disk_keeps_what_was_saved(door, tmp_path):
    """The run stops in one line, and the last state is intact."""
    options = ["--checkpoint-every", str(BATCH)]
    with file_size_limit(20_000):
        code, _, err = door(*options)
    assert code == 1
    assert "cannot write" in error_line(err)
    folder = tmp_path / "run" / "checkpoints"
    assert [p for p in folder.rglob("*") if p.is_file()] == []  # nothing half-written
    assert door(*options)[0] == 0  # and the run can go on


def test_nan_stops_the_run(door, tmp_path):
    code, _, err = door("--lr", "1e18", "--checkpoint-every", str(BATCH))
    assert code == 1
    assert "not finite" in error_line(err) or "the loss is" in error_line(err)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_dry_run_touches_nothing(door, tmp_path):
    code, out, _ = door("--dry-run", "--micro-batch", "16")
    assert code == 0
    assert "32 a step = 8 images x 4 columns" in out
    assert "2 a rank of at most 16" in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_network_that_nobody_says(door):
    """The recipe leaves the network to --init, which is not here."""
    code, _, err = door("--dry-run", "--init", "edm2-img64-s-1073741-0.075")
    assert code == 1 and "recipe mnist16 does not say what network it is" in err


def test_dry_run_shows_what_an_objective_is_made_of(door):
    _, out, _ = door("--dry-run", "--objective", "ccdpo")
    assert "ccdpo: CCDPO(beta=0.02)" in out
    assert "8 images x 4 columns, and as many of the reference" in out
    _, out, _ = door("--dry-run", "--objective", "gft", "--beta", "0.25")
    assert "gft: GFT(beta=0.25)" in out
    assert "8 images x 1 columns, and as many without a label" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--beta", "0.1"], "--beta 0.1 is not an option of mclr but of ccdpo, cca, ddo, gft: leave it out"),
        (["--objective", "gft", "--include-own"], "not an option of gft but of mclr, kl-mclr, weighted-mclr"),
        (["--label-dropout", "0.2"], "of cca, gft, model-guidance, denoising"),
        (["--objective", "ccdpo", "--negatives", "x.zip"], "of kl-mclr, plus-minus, ddo"),
        (["--recipe", "mnist16-table", "--label-dropout", "0.2", "--dry-run"], None),  # gft is in its grid
        (["--recipe", "mnist16-cfgrl", "--positives", "data", "--dry-run"], None),
        (["--recipe", "mnist16-cfgrl", "--objective", "mclr", "--dry-run"], None),  # not given: the recipe's
        (["--control", "last", "--label-dropout", "0.2", "--dry-run"], None),  # the control drops labels
    ],
)
def test_options_of_another_objective(door, tmp_path, options, words):
    code, _, err = door(*options)
    assert code == (1 if words else 0), err
    assert words is None or words in error_line(err)
    assert not (tmp_path / "run").exists()


def test_patience_without_evaluations(door):
    code, _, err = door("--patience", "2")
    assert code == 1
    assert "--patience 2 waits for evaluations, and this run has none" in error_line(err)


def test_samples_of_the_sample_door_are_negatives(door, base, tmp_path):
    """Made ahead of the run: twice into one folder, then drawn from."""
    outdir = tmp_path / "negatives"
    for seeds in ("100-103", "104-107"):
        options = ["--seeds", seeds, "--balance", "--num-steps", "2", "--device", "cpu"]
        assert sample.main([base, *options, "--outdir", str(outdir)]) == 0
    code, _, err = door("--objective", "ddo", "--negatives", str(outdir))
    assert code == 0, err
    assert not (tmp_path / "run" / "samples").exists()


def test_help_shows_examples_options_and_every_recipe(capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for words in ("\n  torchrun -m mclr_fast.train --recipe", "--micro-batch INT", "--outdir {None}|PATH"):
        assert words in text
    told = text.partition("Recipes (")[2].partition("\n\n")[0].splitlines()[1:]
    lines = {line.split()[0]: line for line in told}
    assert lines.keys() == RECIPES.keys()
    for name in RECIPES:
        assert len(lines[name].partition(name)[2].split()) > 5, f"{name} says not what it does"
    assert lines["mnist16"].endswith(
        "Fine-tune the shipped base with MCLR, with a control, curves and a report."
    )
    assert "--recipe STR" in text and "(default: mnist16)" in text


@pytest.mark.parametrize("name", ["edm2-img64-s", "edm2-img512-l"])
def test_preset_recipes_dry_run(name, capsys):
    assert train.main(["--recipe", name, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "not validated at this scale" in out
    assert {"edm2-img64-s": "280,209,381", "edm2-img512-l": "777,498,085"}[name] in out
    assert train.main(["--recipe", name, "--data", "x"]) == 1
    assert "--init" in error_line(capsys.readouterr().err)
