"""Protocol `classifier`: what it is trained on, that it is kept and repeats, what its numbers tell."""

import json

import numpy as np
import pytest
import torch
from zips import write_zip

from mclr_fast import score
from mclr_fast.config import EvaluateConfig
from mclr_fast.data.image_files import write_png
from mclr_fast.evaluation import own_classifier as own
from mclr_fast.evaluation.extractors.image_classifier import ImageClassifier, seen_size, shrink
from mclr_fast.evaluation.image_sets import class_labels, open_images
from mclr_fast.evaluation.own_classifier import Plan, Training, own_classifier
from mclr_fast.evaluation.parts import interleaved, tenth
from mclr_fast.experiments.one_model.evaluate_model import evaluate
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

ONE = Ranks("cpu")
NUM_CLASSES = 4


def striped(num_images, seed, size=16, channels=1, strength=90):
    """Images of NUM_CLASSES kinds of stripes under noise, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    row, column = np.mgrid[:size, :size] * 16 / size
    kinds = np.stack([np.sin(w) for w in (row, column, row + column, row - column)])
    shift = rng.uniform(0.8, 1.2, (num_images, 1, 1))
    images = 128 + strength * shift * kinds[labels] + rng.normal(0, 25, (num_images, size, size))
    pixels = np.repeat(images.clip(0, 255).astype(np.uint8)[:, None], channels, axis=1)
    return pixels, labels


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A short training, and a cache of its own."""
    monkeypatch.setattr(own, "TRAINING", Training(usual_images=2000, least_epochs=1, most_epochs=12))
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    """A data set of 240 striped images."""
    write_zip(tmp_path / "data.zip", *striped(240, 0))
    return str(tmp_path / "data.zip")


def trained(path, heldout=None, folder=None):
    plan = Plan.of([path], heldout and open_images(heldout))
    return own_classifier(plan, folder, ONE, StopRequest())


def test_a_tenth_of_every_class_is_held_out():
    """Of 100, 47 and 10 images; none is on both sides, any prefix has the classes evenly."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 47, 10]))
    left, out = tenth(labels)
    assert sorted([*left, *out]) == list(range(157))
    assert np.bincount(labels[out]).tolist() == [10, 4, 1]
    assert sorted(labels[interleaved(labels)[:30]].tolist()) == [0] * 10 + [1] * 10 + [2] * 10
    assert all(np.array_equal(a, b) for a, b in zip(tenth(labels), (left, out), strict=True))


def test_it_knows_good_from_bad(data, tmp_path):
    """FD of fresh images is below that of weak stripes; wrong labels cost accuracy and nothing else."""
    write_zip(tmp_path / "fresh.zip", *striped(200, 1))
    write_zip(tmp_path / "weak.zip", *striped(200, 1, strength=20))
    pixels, labels = striped(200, 1)
    write_zip(tmp_path / "wrong.zip", pixels, (labels + 1) % NUM_CLASSES)
    names = ("fresh", "weak", "wrong")
    rows = {name: score(tmp_path / f"{name}.zip", data, "classifier", device="cpu") for name in names}
    fresh, weak, wrong = (rows[name]["classifier"] for name in names)
    assert fresh["accuracy"] > 0.95 and wrong["accuracy"] < 0.05
    assert 2 * fresh["fd"] < weak["fd"] and fresh["is"] > weak["is"]
    assert wrong == fresh | {"accuracy": wrong["accuracy"]}
    assert fresh["fd_heldout"] > fresh["fd"] > 0


def test_it_repeats_and_is_kept(data, tmp_path, capsys):
    """The same weights when trained again; from the cache or the run's folder without training."""
    first = trained(data, folder=tmp_path / "run")
    assert "training one on 216 images" in capsys.readouterr().out
    (kept,) = (tmp_path / "run").glob("classifier-*.safetensors")
    again = trained(data)
    said = capsys.readouterr().out
    assert "training" not in said and f"{first.about['accuracy']:.2%} of 24 held-out" in said
    (cached,) = (tmp_path / "cache" / "classifiers").glob("*.safetensors")
    assert cached.read_bytes() == kept.read_bytes()
    cached.unlink()
    from_run = trained(data, folder=tmp_path / "run")
    assert "training" not in capsys.readouterr().out and cached.is_file()
    cached.unlink()
    anew = trained(data)
    assert first.weights == again.weights == from_run.weights == anew.weights
    assert first.about == anew.about


def test_a_damaged_file_is_trained_again(data, tmp_path, capsys):
    """It is said; the file is whole afterwards. Another seed has another file and other weights."""
    first = trained(data)
    (cached,) = (tmp_path / "cache" / "classifiers").glob("*.safetensors")
    content = cached.read_bytes()
    cached.write_bytes(content[: len(content) // 2])
    assert trained(data).weights == first.weights
    assert f"{cached} is no classifier of this data" in capsys.readouterr().err
    assert cached.read_bytes() == content


def test_the_key_is_the_data_s(data, tmp_path, monkeypatch):
    """A copy elsewhere has it; other labels, images, held-out images, settings have another."""
    pixels, labels = striped(240, 0)
    write_zip(tmp_path / "copy.zip", pixels, labels)
    write_zip(tmp_path / "labels.zip", pixels, np.roll(labels, 1))
    write_zip(tmp_path / "images.zip", *striped(240, 5))
    key = Plan.of([data], None).key
    assert Plan.of([str(tmp_path / "copy.zip")], None).key == key
    others = [Plan.of([str(tmp_path / f"{name}.zip")], None).key for name in ("labels", "images")]
    others.append(Plan.of([data], open_images(str(tmp_path / "images.zip"))).key)
    monkeypatch.setattr(own, "TRAINING", Training(seed=1))
    others.append(Plan.of([data], None).key)
    assert len({key, *others}) == 5


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (45, 33), (64, 64), (100, 50), (512, 512)])
def test_any_size(size):
    """Images of 16 to 512 pixels, grey and RGB: seen at 64 at most; the same values from the size seen."""
    net = ImageClassifier((3, *size), 5).eval()
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    features, logits = net.see(images)
    assert features.shape == (2, 64) and logits.shape == (2, 5)
    assert max(net.size) == min(max(size), 64) and net.size == seen_size(size)
    small = shrink(images, net.size)
    assert small.dtype == torch.uint8 and torch.equal(net.see(images)[0], net(small)[0].detach())


def refused(**options):
    with pytest.raises(RunError) as error:
        evaluate(EvaluateConfig(protocol="classifier", **options), ONE, StopRequest())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_it_cannot_be_trained_on(data, tmp_path):
    """One line each: no reference, no labels, latents, its classes, other held-out images or sizes."""
    pixels, labels = striped(60, 0)
    images = tmp_path / "data.zip"
    assert "name a data set of them with --ref" in refused(images=images)
    np.savez(tmp_path / "unlabelled.npz", pixels.transpose(0, 2, 3, 1).repeat(3, axis=3))
    assert "has no labels, which protocol classifier" in refused(
        images=images, ref=(str(tmp_path / "unlabelled.npz"),)
    )
    (tmp_path / "flat").mkdir()
    for place, image in enumerate(pixels[:3]):
        write_png(tmp_path / "flat" / f"{place}.png", image)
    assert "no dataset.json, so no labels" in refused(images=images, ref=(str(tmp_path / "flat"),))
    write_zip(tmp_path / "latents.zip", np.zeros((40, 8, 4, 4), np.float32), np.arange(40) % 4)
    assert "holds latents of 8 channels, not images: name those" in refused(
        images=images, ref=(str(tmp_path / "latents.zip"),)
    )
    for name, given, said in (
        ("one", np.zeros_like(labels), "has 1 classes, numbered 0 to 0"),
        (
            "few",
            np.minimum(labels + (np.arange(60) < 9), 1 + labels % 3),
            "images; protocol classifier needs",
        ),
        ("many", labels + 997, "numbered 997 to 1000"),
    ):
        write_zip(tmp_path / f"{name}.zip", pixels, given)
        assert said in refused(images=images, ref=(str(tmp_path / f"{name}.zip"),)), name
    small = striped(60, 0, size=24)
    write_zip(tmp_path / "larger.zip", *small)
    write_zip(tmp_path / "more.zip", pixels, labels + 1)
    ref = (data,)
    assert "--heldout are 1x24x24, those of the data 1x16x16" in refused(
        images=images, ref=ref, heldout=str(tmp_path / "larger.zip")
    )
    assert "labels of --heldout lie in [1, 4]; the data has classes 0 to 3" in refused(
        images=images, ref=ref, heldout=str(tmp_path / "more.zip")
    )
    assert "judges images (1, 16, 16), these are (1, 24, 24)" in refused(
        images=tmp_path / "larger.zip", ref=ref
    )
    with pytest.raises(RunError, match="classifier stands alone"):
        score(pixels, data, "classifier,fid")
    with pytest.raises(RunError, match="--heldout does nothing here"):
        evaluate(EvaluateConfig(protocol="fid", images=images, heldout=data), ONE, StopRequest())


def test_held_out_images_of_ones_own(data, tmp_path, monkeypatch):
    """All of the data is trained on, and compared with; the row says which classifier, and how good.

    They lie class by class, and the first of them are of every class all the same.
    """
    pixels, labels = striped(80, 7)
    order = np.argsort(labels, kind="stable")
    write_zip(tmp_path / "heldout.zip", pixels[order], labels[order])
    first = Plan.of([data], open_images(str(tmp_path / "heldout.zip"))).heldout.labels[:8]
    assert np.bincount(first).tolist() == [2, 2, 2, 2]
    write_zip(tmp_path / "fresh.zip", *striped(100, 8))
    config = EvaluateConfig(
        protocol="classifier",
        images=tmp_path / "fresh.zip",
        ref=(data,),
        heldout=str(tmp_path / "heldout.zip"),
        device="cpu",
    )
    row = evaluate(config, ONE, StopRequest())
    about = row["protocols"]["classifier"]
    assert (about["train_images"], about["heldout_images"]) == (240, 80) and about["accuracy"] > 0.95
    assert about["reference"]["num_images"] == 240 and row["classifier"] == about["weights"]
    assert (tmp_path / "data.zip.classifier.npz").exists()  # statistics, kept beside it
    assert evaluate(config, ONE, StopRequest())["metrics"] == row["metrics"]
    assert row["fd"] != row["fd_heldout"]
    scored = score(tmp_path / "fresh.zip", data, "classifier", heldout=config.heldout, device="cpu")
    # In batches of another size: the order of summing moves float64's last digits.
    assert scored["classifier"] == pytest.approx(row["metrics"]["classifier"], rel=1e-9)
    with pytest.raises(ValueError, match="heldout= is of protocol classifier"):
        score(tmp_path / "fresh.zip", data, "fid", heldout=config.heldout)
    (tmp_path / "data.zip.classifier.npz").unlink()
    with monkeypatch.context() as patch:  # of a large set precision and recall compare with some
        patch.setattr(own, "MAX_FEATURES", 70)
        few = evaluate(config, ONE, StopRequest())
    assert few["protocols"]["classifier"]["reference"]["num_images"] == 70
    assert few["fd"] == pytest.approx(row["fd"]) and few["recall"] != row["recall"]


def test_classes_are_known_by_their_names(tmp_path):
    """Of folders a class: a folder of some of them counts, one of others has no accuracy."""
    pixels, labels = striped(80, 0)
    for name, classes in (("all", "abcd"), ("some", "bd"), ("other", "xyzw")):
        for place in range(80):
            called = "abcd"[labels[place]]
            called = called if name != "other" else classes[labels[place]]
            if called in classes:
                (tmp_path / name / called).mkdir(parents=True, exist_ok=True)
                write_png(tmp_path / name / called / f"{place}.png", pixels[place])
    whole, some, other = (open_images(str(tmp_path / name)) for name in ("all", "some", "other"))
    assert class_labels(some, whole.class_names).tolist() == [1] * 20 + [3] * 20
    assert class_labels(other, whole.class_names) is None
    assert class_labels(whole, whole.class_names).tolist() == whole.labels.tolist()


def test_several_ranks(data, tmp_path, monkeypatch, on_ranks):
    """The first trains, and all see with what it made: the row is one rank's."""
    monkeypatch.setattr(own, "TRAINING", Training())
    write_zip(tmp_path / "fresh.zip", *striped(101, 9))
    command = ["--images", tmp_path / "fresh.zip", "--ref", data, "--protocol", "classifier"]
    done = on_ranks(2, "-m", "mclr_fast.evaluate", *command, "--device", "cpu", "--sample-batch", 7)
    assert done.returncode == 0 and done.stdout.count("training one on") == 1, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    (tmp_path / "data.zip.nine-tenths.classifier.npz").unlink()
    ours = score(tmp_path / "fresh.zip", data, "classifier", device="cpu")
    assert theirs["metrics"]["classifier"] == pytest.approx(ours["classifier"], rel=1e-5)
