"""A user's mistake is one clear line before anything is made."""

import dataclasses
import shutil

import numpy as np
import pytest
from zips import write_zip

from mclr_fast import train
from mclr_fast.data import open_dataset
from mclr_fast.data.image_files import write_png
from mclr_fast.experiments.checks import check_options
from mclr_fast.experiments.estimates.dry_run import dry_run
from mclr_fast.experiments.run import Run
from mclr_fast.models import describe, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage.published import FILES
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest


@pytest.fixture
def refused(tiny_run, run_config, files):
    """refused(words, objective, **options): run and dry run are refused in these words, without a trace."""

    def check(words, objective, train=(), **options):
        with pytest.raises(RunError, match=words) as error:
            tiny_run("run", objective, train=train, **options)
        assert "\n" not in str(error.value)
        with pytest.raises(RunError) as dry:
            dry_run(run_config("run", objective, train, **options))
        assert str(dry.value) == str(error.value)
        assert not (files / "run").exists()

    return check


@pytest.fixture
def model(files, tiny):
    """model(name, **changes): a folder with a model like the tiny base but for these arguments."""

    def make(name, **changes):
        arguments = tiny.NET | changes
        save_model(files / name, Precond(**arguments).state_dict(), describe(arguments))
        return str(files / name)

    return make


@pytest.mark.parametrize(
    ("objective", "options", "words"),
    [
        ("ccdpo", {"beta": -1.0}, "--objective ccdpo: --beta must be above 0, not -1.0"),
        ("cca", {"lambda_coef": 0.0}, "--objective cca: --lambda-coef must be above 0, not 0.0"),
        ("ddo", {"alpha": -2.0}, "--alpha must be above 0, not -2.0"),
        ("weighted-mclr", {"eta": -0.5}, "--eta must be at least 0, not -0.5"),
        ("gft", {"beta": 2.0}, "--beta must be above 0 and at most 1, not 2.0"),
        (
            "model-guidance",
            {"guidance_weight": 1.0},
            "--guidance-weight must be at least 0 and below 1, not 1.0",
        ),
        ("mclr", {"dsm_weight": -1.0}, "--dsm-weight must be at least 0"),
        ("gft", {"label_dropout": 1.0}, "--label-dropout must be at least 0 and below 1"),
        ("ddo", {"refresh_every": -1}, "--refresh-every must be at least 0"),
        ("ddo", {"model_samples": 3}, "--model-samples 3 leaves some of 4 classes without a sample"),
        ("plus-minus", {"positives": "best", "best_share": 0.0}, "--best-share must be above 0"),
        ("plus-minus", {"positives": "nowhere.zip"}, "--positives: no dataset at nowhere.zip"),
        ("ccdpo", {"reference": "nowhere"}, "no model at nowhere"),
        ("plus-minus", {"negatives_model": "nowhere"}, "no model at nowhere"),
    ],
)
def test_options_out_of_range_are_refused(refused, objective, options, words):
    refused(words, objective, **options)


def test_the_base_against_itself_is_refused(tiny_run, run_config):
    """What a recipe leaves to be named, its dry run does without."""
    with pytest.raises(RunError, match=r"--positives base .* give --negatives-model"):
        tiny_run("run", "plus-minus", positives="base")
    assert "plus-minus: PlusMinus(eta=1.0)" in dry_run(run_config("run", "plus-minus", positives="base"))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"micro_batch": 3}, "--micro-batch 3 is smaller than a row of ccdpo, R = 4 evaluations"),
        ({"stop_factor": 1.0}, "--stop-factor must be 0 .* or above 1, not 1.0"),
        ({"ema_beta": 1.5}, r"--ema plain: beta=1\.5 is not a decay: it must lie in \[0, 1\]"),
        ({"lr": float("nan")}, "--lr must be at least 0, not nan"),
        ({"betas": (0.9, 1.0)}, r"--betas must be each in \[0, 1\), not \(0\.9, 1\.0\)"),
        ({"dropout": -0.1}, r"--dropout must be in \[0, 1\), not -0\.1"),
        ({"dropout": 1.0}, r"--dropout must be in \[0, 1\), not 1\.0"),
        ({"lr": float("inf")}, "--lr must be at least 0, not inf"),
    ],
)
def test_training_options_out_of_range_are_refused(refused, train, words):
    refused(words, "ccdpo", train)


@pytest.mark.parametrize(("batch_size", "num_ranks"), [(1, 2), (4, 5), (12, 64)])
@pytest.mark.robust("arguments")
def test_a_batch_that_leaves_a_rank_without_rows_is_refused(run_config, batch_size, num_ranks):
    """A batch of fewer images than there are ranks is refused before the start, with both numbers."""
    config = run_config("run", "mclr", {"batch_size": batch_size})
    words = f"--batch-size {batch_size} leaves some of {num_ranks} ranks without an image"
    with pytest.raises(RunError, match=words):
        check_options(config, num_ranks)
    check_options(config, batch_size)


@pytest.mark.parametrize(
    "option",
    ["proof_samples", "eval.num_samples", "eval.final_samples", "eval.grid_noises", "train.batch_size"],
)
@pytest.mark.robust("arguments")
def test_counts_that_cannot_be_meant(run_config, option):
    """A count of 10^12 is refused in one line, not by a MemoryError."""
    config = run_config("run", "mclr", {})
    group, _, name = option.rpartition(".")
    changed = dataclasses.replace(getattr(config, group) if group else config, **{name: 10**12})
    config = dataclasses.replace(config, **{group: changed}) if group else changed
    words = f"--{name.replace('_', '-')} must be at most 10,000,000, not {10**12}"
    with pytest.raises(RunError, match=words):
        check_options(config, 1)


def test_a_row_may_be_cut_where_the_objective_allows(tiny_run):
    tiny_run("run", "cca", train={"micro_batch": 3})


@pytest.mark.parametrize("objective", ["ccdpo", "cca", "ddo"])
def test_a_reference_of_another_architecture_is_refused(refused, model, objective):
    refused(
        "another architecture: its model_channels is 16, the trained network's 8",
        objective,
        reference=model("wide", model_channels=16),
    )


def test_samples_may_come_from_another_architecture_but_not_of_other_images(tiny_run, refused, model):
    wrong = model("other", label_dim=7)
    words = "--negatives-model .* other images or classes: its label_dim is 7, the trained network's 4"
    refused(words, "plus-minus", negatives_model=wrong)
    tiny_run("fine", "plus-minus", negatives_model=model("wide", model_channels=16))


def write_negatives(path, labels, size=8, channels=1):
    write_zip(path, np.zeros((len(labels), channels, size, size), np.uint8), np.array(labels))
    return path


@pytest.mark.parametrize("objective", ["ddo", "kl-mclr", "plus-minus"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (dict(labels=[0, 1, 2, 3], size=16), "holds images of 1x16x16, the data 1x8x8"),
        (dict(labels=[0, 1, 2, 3], channels=3), "holds images of 3x8x8, the data 1x8x8"),
        (dict(labels=[0, 1, 2, 4]), "has labels up to 4; the network knows classes 0 to 3"),
        (dict(labels=[0, 1, 1, 3]), "has no sample of 1 of the data's 4 classes .first: class 2."),
    ],
    ids=["size", "channels", "unknown class", "missing class"],
)
def test_negatives_that_do_not_fit_are_refused(refused, files, objective, content, words):
    refused(words, objective, negatives=write_negatives(files / "negatives.zip", **content))


def test_negatives_that_cannot_be_made_or_read_are_refused(refused, files):
    refused("name a file that ends in .zip", "ddo", negatives=files / "nowhere")
    (files / "broken.zip").write_text("no zip")
    refused("--negatives: .*broken.zip is not a zip archive", "ddo", negatives=files / "broken.zip")


def test_a_classifier_of_other_noise_levels_is_refused(refused, tiny_run, files):
    tiny_run("other", "weighted-mclr", classifier=files / "classifier.safetensors").needs.make()
    words = "--classifier .* was trained for something else: its P_std is 0.5, this run's 0.75"
    refused(words, "weighted-mclr", classifier=files / "classifier.safetensors", P_std=0.75)


ONE_CLASS = r"data\.zip has 1 distinct class, 2 .5 images.; {} contrasts at least 2: use data of more classes"


@pytest.mark.parametrize("objective", ["mclr", "kl-mclr", "ccdpo", "cca"])
@pytest.mark.robust("batches")
def test_data_of_one_class_are_refused_by_what_contrasts_classes(refused, files, objective):
    """Run and dry run say which class it is, how many images it has, and what there is instead."""
    write_negatives(files / "data.zip", [2] * 5)
    refused(ONE_CLASS.format(objective), objective)


@pytest.mark.parametrize(
    ("objective", "options"),
    [("mclr", {"include_own": True}), ("weighted-mclr", {}), ("ddo", {}), ("gft", {}), ("denoising", {})],
)
@pytest.mark.robust("batches")
def test_data_of_one_class_are_taken_by_what_does_not_contrast_it(tiny_run, files, objective, options):
    """Objectives of all labels, of samples or of no negatives have a use for them."""
    write_negatives(files / "data.zip", [2] * 5)
    tiny_run("run", objective, **options)


LOPSIDED = {"labels": [0] * 17 + [1, 2, 3]}


@pytest.mark.parametrize(
    ("batch_size", "note"), [(2, "about 34 of 48"), (4, "about 12 of 24"), (8, "about 2 of 12")]
)
@pytest.mark.robust("batches")
def test_minibatches_of_one_class_are_announced(tiny_run, run_config, files, capsys, batch_size, note):
    """A run and its dry run say about how many there are, and the run goes to its end, resumed or not."""
    write_negatives(files / "data.zip", **LOPSIDED)
    train = {"batch_size": batch_size, "duration": 96, "lr": 1e-4}
    said = f"{note} minibatches of {batch_size} hold one class alone: their negatives are drawn from all"
    assert said in dry_run(run_config("run", "ccdpo", train))
    with pytest.raises(Interrupted):
        tiny_run("run", "ccdpo", 96 // batch_size // 2, train).execute()
    assert said in capsys.readouterr().out
    summary = tiny_run("run", "ccdpo", train=train).execute()
    assert summary.images_seen == 96


@pytest.mark.parametrize(
    ("objective", "train"),
    [("mclr", {"batch_size": 18}), ("mclr", {"batch_size": 8, "duration": 8}), ("ddo", {"batch_size": 2})],
)
@pytest.mark.robust("batches")
def test_minibatches_of_one_class_are_not_announced_where_none_will_be(run_config, files, objective, train):
    """Nor where the objective has no use for the others of its minibatch."""
    write_negatives(files / "data.zip", **LOPSIDED)
    assert "one class alone" not in dry_run(run_config("run", objective, train))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heldout": "nowhere"}, "nowhere"),
        ({"best_by": "is"}, "--best-by is is none of --protocol fid that measures FD"),
        ({"neighbors": 5}, "--neighbors does nothing here: fid have their own"),
        ({"gnet": "nowhere"}, "nowhere"),
    ],
)
def test_a_dry_run_refuses_judges_that_the_run_would_refuse(run_config, files, options, words):
    config = run_config("run")
    judged = dataclasses.replace(config.eval, eval_every=12, **options)
    config = dataclasses.replace(config, eval=judged, protocol="fid")
    said = []
    for refuse in (lambda: dry_run(config), lambda: Run(config, Ranks("cpu"), StopRequest())):
        with pytest.raises(RunError, match=words) as error:
            refuse()
        said.append(str(error.value))
    assert said[0] == said[1] and not (files / "run").exists()


def test_a_dry_run_refuses_a_folder_that_the_run_would_refuse(tiny_run, run_config, files):
    """Another run's, one with other files, one that cannot be made; and leaves it as it is."""
    tiny_run("run")
    before = {path: path.read_bytes() for path in (files / "run").iterdir() if path.is_file()}
    assert "(exists: resumes)" in dry_run(run_config("run"))
    with pytest.raises(RunError, match=r"holds another run's state .*train\.lr: 0\.001 there"):
        dry_run(run_config("run", train={"lr": 0.5}))
    assert before == {path: path.read_bytes() for path in (files / "run").iterdir() if path.is_file()}
    (files / "other").mkdir()
    (files / "other" / "thesis.pdf").write_text("mine")
    with pytest.raises(RunError, match="other is not empty and holds no run of ours"):
        dry_run(run_config("other"))
    (files / "file").write_text("")
    with pytest.raises(RunError, match="file is no folder that can be written to"):
        dry_run(run_config("file/run"))
    dry_run(run_config("deep/er"))
    assert not (files / "deep").exists()


def test_a_dry_run_refuses_other_files_than_the_run_began_with(tiny_run, run_config, files, tiny):
    tiny_run("run")
    data = tiny.TinyData(1)
    write_zip(files / "data.zip", data.images(range(len(data))), data.labels)
    with pytest.raises(RunError, match=r"holds another run's state .data: "):
        dry_run(run_config("run"))


def test_a_dry_run_refuses_a_proof_that_cannot_be_one(run_config):
    with pytest.raises(RunError, match="--proof-seeds compares FDs with the base's"):
        dry_run(dataclasses.replace(run_config("run"), proof_seeds=(0, 1)))


def test_what_a_run_needs_and_nobody_named_is_refused_after_the_plan(capsys):
    """So a plan may be read before its files are there; the exit code is the run's."""
    assert train.main(["--recipe", "edm2-img64-xs", "--dry-run", "--device", "cpu"]) == 1
    told, refused = capsys.readouterr()
    assert "\noptions\n" in told
    assert refused.startswith("error: recipe edm2-img64-xs needs --data") and refused.count("\n") == 1


def test_a_dry_run_of_data_that_do_not_fit_is_refused(run_config, files):
    write_negatives(files / "data.zip", [0, 1, 2, 7])
    with pytest.raises(RunError, match=r"the labels of --data .* --init .* knows classes 0 to 3"):
        dry_run(run_config("run"))


def test_a_dry_run_names_classes_and_says_how_data_were_read(run_config, files):
    images = open_dataset(str(files / "data.zip")).images(np.arange(4))
    for name, image in zip(("ant/0", "ant/1", "bee/0", ".ipynb_checkpoints/0"), images, strict=True):
        path = files / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, image)
    config = dataclasses.replace(run_config("run"), data=str(files / "photos"))
    lines = dry_run(config).splitlines()
    assert "data            3 images, 2 classes: 0 ant (2), 1 bee (1)" in lines
    assert "note            left aside, hidden or another program's: .ipynb_checkpoints" in lines
    for part in ("train", "val"):
        shutil.copytree(files / "photos", files / "parts" / part)
    with pytest.raises(RunError, match=r"parts of one data set, or its classes.*--within train"):
        dry_run(dataclasses.replace(config, data=str(files / "parts")))


def test_a_dry_run_may_leave_out_what_is_still_to_come(run_config, files, tiny):
    config = run_config(
        "run", "ddo", negatives=write_negatives(files / "negatives.zip", [0, 1, 2, 3], size=16)
    )
    without = dataclasses.replace(config, data=None, init=None, net=tiny.NET)
    assert "ddo: DDO(beta=0.02, alpha=1.0)" in dry_run(without)


def test_a_dry_run_downloads_nothing_and_says_what_would_be(run_config, files, server, tiny, monkeypatch):
    """Models still to be downloaded are taken for what the recipe expects; those in the cache are read."""
    config = dataclasses.replace(run_config("run", "ddo"), net=tiny.NET, init="edm2-img64-s-1073741-0.075")
    monkeypatch.setitem(FILES, config.init, dataclasses.replace(FILES[config.init], address=server.address))
    objective = dataclasses.replace(config.objective, reference=f"{server.address}?version=2")
    text = dry_run(dataclasses.replace(config, objective=objective))
    here = server.address.split("?")[0]
    assert not server.asked and text.count("downloads  ") == 2
    assert f"{here} (EDM2-S, ImageNet-64, 1,024 Mi images, EMA 0.075, licence CC BY-NC-SA 4.0), to " in text
    assert f"{here} (licence unknown), to " in text and "init                         edm2-img64" in text
    place = FILES[config.init].place
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no pickle")
    with pytest.raises(RunError, match=r"model\.pkl is refused: it is damaged or no pickled model"):
        dry_run(config)
