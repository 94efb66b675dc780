"""Recipes `images-base` and `images`: networks and numbers follow the data and the device."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from zips import write_zip

from mclr_fast import generate, sample, train
from mclr_fast.data import open_dataset
from mclr_fast.models import read_config
from mclr_fast.recipes import Asked, get_recipe
from mclr_fast.recipes.images import base_duration, default_batch, default_size, tuning_steps

LABELS = np.arange(12) % 3
CPU = ["--device", "cpu"]


@pytest.fixture
def photos(tmp_path):
    """photos(shape, labels): a zip of images of that shape."""

    def make(shape=(3, 16, 16), labels=LABELS, name="photos.zip"):
        images = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        write_zip(tmp_path / name, images, labels)
        return str(tmp_path / name)

    return make


@pytest.fixture
def refused(capsys):
    """refused(*options): the one line that `train` ends with."""

    def call(*options):
        assert train.main([*options, *CPU]) == 1
        err = capsys.readouterr().err
        (line,) = (line for line in err.splitlines() if line.startswith("error:"))
        assert "Traceback" not in err
        return line

    return call


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28)])
def test_the_network_is_for_the_data(photos, shape):
    """Channels, side and classes, the highest label's included."""
    run = train.parse(["--recipe", "images-base", "--data", photos(shape, np.arange(12) % 5), *CPU])
    net = run.net
    assert (net["img_channels"], net["img_resolution"], net["label_dim"]) == (shape[0], shape[1], 5)
    assert run.size == "tiny" and net["model_channels"] == 16


def test_latents_have_their_channels_noise_and_no_judge(tmp_path):
    latents = np.zeros((4, 8, 4, 4), np.float32)
    write_zip(tmp_path / "latents.zip", latents, np.arange(4) % 2)
    run = get_recipe("images-base", Asked(data=str(tmp_path / "latents.zip"), device="cpu"))
    assert (run.net["img_channels"], run.net["img_resolution"]) == (4, 4)
    assert (run.objective.P_mean, run.objective.P_std, run.protocol) == (-0.4, 1.0, None)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "on_cpu", "on_gpu", "steps", "size"),
    [
        (30, 32, 65_536, 65_536, 300, "small"),
        (300, 32, 143_584, 300_000, 300, "small"),
        (1_000, 64, 262_144, 1_000_000, 300, "small"),
        (50_000, 512, 1_853_440, 14_829_056, 300, "medium"),
        (1_000_000, 2048, 8_290_304, 66_318_336, 512, "medium"),
    ],
)
def test_numbers_by_the_size_of_the_data(num_images, batch_size, on_cpu, on_gpu, steps, size):
    assert default_batch(num_images) == batch_size
    for gpu, duration in ((False, on_cpu), (True, on_gpu)):
        found = base_duration(num_images, batch_size, gpu)
        assert found == duration
    assert tuning_steps(batch_size) == steps
    assert default_size(num_images, True) == size and default_size(num_images, False) == "tiny"


def test_the_users_options_win(photos):
    """Those of the command line override what follows the data, each alone."""
    data = photos()
    chosen = train.parse(["--recipe", "images-base", "--data", data, *CPU])
    asked = [
        "--lr",
        "0.5",
        "--batch-size",
        "8",
        "--net",
        "model_channels=8",
        "channel_mult=1",
        "label_dim=10",
    ]
    run = train.parse(["--recipe", "images-base", "--data", data, *CPU, *asked])
    net = {**chosen.net, "model_channels": 8, "channel_mult": [1], "label_dim": 10}
    expected = replace(chosen, net=net, train=replace(chosen.train, lr=0.5, batch_size=8))
    assert run == expected
    sized = train.parse(["--recipe", "images-base", "--size", "edm2-img64-m", "--data", data, *CPU])
    assert sized.net["model_channels"] == 256
    assert (sized.train.lr, sized.train.dropout) == (0.009, 0.1)  # the preset's


def test_a_base_goes_on_with_another_models_network(photos):
    run = get_recipe("images-base", Asked(data=photos(), init="somewhere", device="cpu"))
    assert (run.net, run.size) == (None, None)


def test_a_protocol_that_is_named_has_evaluations(photos):
    asked = Asked(data=photos(), protocol="fid", device="cpu")
    base, tuned = get_recipe("images-base", asked), get_recipe("images", asked)
    assert base.protocol == tuned.protocol == "fid"
    assert base.is_judged and tuned.is_judged
    assert tuned.eval.control == "last" and tuned.eval.cfg_scales
    unjudged = get_recipe("images", replace(asked, protocol=None))
    assert not unjudged.is_judged and unjudged.eval.control == "none"


def test_the_dry_run_says_what_was_chosen(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--recipe", "images-base", "--data", photos(), "--dry-run", *CPU]) == 0
    out = capsys.readouterr().out
    assert "parameters, size tiny\n" in out
    assert "2,048 of 32 images, 65,536 in all (5,461.3 times the data)\n" in out
    assert "learning rate   0.01 (edm2)\n" in out
    assert not (tmp_path / "runs").exists()


def test_a_base_and_its_fine_tuning(photos, tmp_path, capsys, monkeypatch):
    """The run's folder is what --init takes; the first lines say the numbers."""
    monkeypatch.chdir(tmp_path)
    short = ["--data", photos(), "--duration", "64", "--batch-size", "8", *CPU]
    assert train.main(["--recipe", "images-base", *short]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("images-base: 12 images of ") and "M parameters (tiny) in " in first
    assert "64 images, each 5.3 times, in steps of 8, learning rate 0.01. Folder: runs/images-base" in first
    tuning = [*short, "--num-negatives", "1"]
    assert train.main(["--recipe", "images", "--init", "runs/images-base", *tuning]) == 0
    assert (tmp_path / "runs/images/checkpoints/final-mclr/model.safetensors").is_file()


@pytest.mark.robust("arguments")
def test_networks_of_runs_that_have_one_are_left_alone(photos, refused):
    """--net and --size are for new networks; every refusal is one line with the mend."""
    data = photos()
    own = "the run begins with --init mnist16-base, whose network is its own: leave --net out"
    assert own in refused("--net", "model_channels=8")
    assert own.replace("--net", "--size") in refused("--size", "tiny")
    given = ["--recipe", "images-base", "--data", data, "--init", "mnist16-base"]
    assert own in refused(*given, "--net", "model_channels=8")
    assert own.replace("--net", "--size") in refused(*given, "--size", "tiny")
    assert "--size tiny is of recipe images-base" in refused("--recipe", "mnist16-base", "--size", "tiny")
    assert "nearest: model_channels" in refused("--recipe", "mnist16-base", "--net", "model_chanels=8")
    assert "near it: photos.zip" in refused(
        "--recipe", "images-base", "--data", data.replace("photos", "photo")
    )
    for recipe, missing in (("images-base", "--data"), ("images", "--init"), ("edm2", "--init")):
        assert f"recipe {recipe} needs {missing}" in refused("--recipe", recipe, "--dry-run")


@pytest.mark.robust("arguments")
def test_networks_that_cannot_be_built_are_one_line(photos, refused, tmp_path):
    """Before the run's folder is made."""
    outdir = tmp_path / "run"
    for argument in (
        "channels_per_head=0",
        "model_channels=0",
        "logvar_channels=0",
        "channel_mult=",
        "channel_mult=1,1,1,1,1,1",
    ):
        line = refused(
            "--recipe", "images-base", "--data", photos(), "--net", argument, "--outdir", str(outdir)
        )
        assert f"--net {argument}"[:15] in line and "no such network can be trained (" in line, argument
        assert "; recipe images-base has " in line
    assert not outdir.exists()


@pytest.mark.robust("arguments")
def test_a_base_for_other_images_is_one_line_with_both_sizes(photos, refused, tmp_path):
    """Channels, side or classes that differ: what to prepare, or which recipe, before the folder is made."""
    outdir = ["--recipe", "images", "--init", "mnist16-base", "--outdir", str(tmp_path / "run")]
    line = refused(*outdir, "--data", photos((3, 32, 32)))
    assert "photos.zip are 3x32x32, those of --init mnist16-base 1x16x16: prepare the data with " in line
    assert "with --resolution 16 and --grey, or train a base for them (--recipe images-base)" in line
    assert "with --grey, or" in refused(*outdir, "--data", photos((3, 16, 16)))
    assert "with --resolution 16, or" in refused(*outdir, "--data", photos((1, 32, 32)))
    line = refused(*outdir, "--data", photos((1, 16, 16), np.arange(24) % 12))
    assert "lie in [0, 11]; --init mnist16-base knows classes 0 to 9: leave the others out" in line
    assert not (tmp_path / "run").exists()


def test_tokens_are_for_other_recipes(tmp_path, refused):
    write_zip(tmp_path / "tokens.zip", np.zeros((4, 30), np.int16), np.arange(4) % 2)
    line = refused("--recipe", "images-base", "--data", str(tmp_path / "tokens.zip"))
    assert "the data are tokens" in line and "--recipe var-d16" in line


def test_class_names_and_trained_classes_travel_to_the_samples(photos, tmp_path, capsys, monkeypatch):
    """From the data's folders to config.json of base and fine-tuned model, and to --labels."""
    monkeypatch.chdir(tmp_path)
    data, named = photos(labels=LABELS), tmp_path / "named.zip"
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(named, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "dataset.json":
                content = json.dumps({**json.loads(content), "class_names": ["cat", "dog", "newt"]})
            target.writestr(name, content)
    short = ["--data", str(named), "--duration", "16", "--batch-size", "8", *CPU]
    assert train.main(["--recipe", "images-base", "--net", "label_dim=5", *short]) == 0
    tuning = ["--init", "runs/images-base", "--num-negatives", "1", *short]
    assert train.main(["--recipe", "images", *tuning]) == 0
    for run in ("runs/images-base", "runs/images"):
        said = read_config(run)
        assert said["class_names"] == ["cat", "dog", "newt", "3", "4"]
        assert said["trained_classes"] == [0, 1, 2]
    capsys.readouterr()

    def sampled(*options):
        code = sample.main(
            ["runs/images", "--seeds", "0-5", "--num-steps", "2", "--out", "s.zip", *CPU, *options]
        )
        found = open_dataset("s.zip").labels.tolist() if code == 0 else None
        Path("s.zip").unlink(missing_ok=True)
        return found or capsys.readouterr().err

    assert sampled("--balance") == [0, 1, 2, 0, 1, 2]
    assert set(sampled()) <= {0, 1, 2}  # drawn by seed, of those that were trained
    assert sampled("--labels", "newt,cat") == [2, 0, 2, 0, 2, 0]
    assert sampled("--labels", "Dog,2") == [1, 2, 1, 2, 1, 2]
    assert "--labels: no class is called 'dgo'; nearest: dog." in sampled("--labels", "cat,dgo")
    line = sampled("--labels", "2-3")
    assert "--labels 2-3: class 3 was never trained; the model's are 0 cat, 1 dog, 2 newt." in line
    assert "--labels 5: the model knows 0 to 4." in sampled("--labels", "5")
    assert torch.equal(
        generate("runs/images", [1], ["newt"], num_steps=2, device="cpu"),
        generate("runs/images", [1], 2, num_steps=2, device="cpu"),
    )
