"""Images as they come to an EDM2 data set: which, in what order, under which labels; what is said of them."""

import io
import json
import shutil
import zipfile

import numpy as np
import PIL.Image
import pytest
from preparing import CPU, NAMES, RESOLUTION, as_source, run

from mclr_fast import prepare as door
from mclr_fast.data import open_dataset
from mclr_fast.data import prepare as prepare_data
from mclr_fast.data.crop import center_crop_dhariwal
from mclr_fast.data.sources.class_counts import class_counts
from mclr_fast.models.vae import VAEEncoder
from mclr_fast.runtime.errors import RunError


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tars"])
def test_any_source_gives_the_same_images_in_the_same_order(folder, tmp_path, kind):
    out = run(as_source(folder, kind), tmp_path / "img16.zip")
    dataset = open_dataset(out)
    order = sorted(NAMES)
    assert dataset.names == [f"00000/img{i:08d}.png" for i in range(10)]
    assert dataset.labels.tolist() == [0] * 5 + [1] * 5 and order[0].startswith("n10/")
    for i, name in enumerate(order):
        image = center_crop_dhariwal(PIL.Image.open(folder / name).convert("RGB"), RESOLUTION)
        assert np.array_equal(dataset.images([i])[0].transpose(1, 2, 0), image)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert [member.filename for member in archive.infolist()][-1] == "dataset.json"
    assert {path.suffix for path in tmp_path.iterdir()} <= {"", ".zip", ".tar"}  # nothing is left over


def test_a_folder_holds_a_thousand_images(tmp_path):
    (tmp_path / "few" / "a").mkdir(parents=True)
    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "few" / "a" / "0.png")
    names = [
        name for name, _ in prepare_data._members(range(999, 1001), [PIL.Image.new("RGB", (2, 2))] * 2, None)
    ]
    assert names == ["00000/img00000999.png", "00001/img00001000.png"]


def test_mirror_images_follow_with_the_same_labels(folder, tmp_path):
    plain = open_dataset(run(folder, tmp_path / "a.zip"))
    both = open_dataset(run(folder, tmp_path / "b.zip", mirror=True))
    images = both.images(range(20))
    assert np.array_equal(images[:10], plain.images(range(10)))
    assert np.array_equal(images[10:], images[:10, :, :, ::-1])
    assert both.labels.tolist() == plain.labels.tolist() * 2


def test_latents_of_both_mirror_images(folder, tmp_path, tiny_vae, small_chunks):
    latents = open_dataset(run(folder, tmp_path / "l.zip", latents=str(tiny_vae), mirror=True))
    pixels = open_dataset(run(folder, tmp_path / "p.zip", mirror=True))
    assert latents.names[11] == "00000/img-mean-std-00000011.npy"
    assert latents.image_shape == (8, 8, 8) and latents.labels.tolist() == pixels.labels.tolist()
    expected = VAEEncoder(str(tiny_vae), CPU)(pixels.images(range(20)))
    np.testing.assert_allclose(latents.images(range(20)), expected, atol=1e-5)
    assert np.abs(expected[10:] - expected[:10, :, :, ::-1]).max() > 1e-3  # mirrored latents would be others


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: shutil.rmtree(f), "no dataset at"),
        (lambda f: (f / "n3").mkdir(), "class folder 'n3' holds no image"),
        (lambda f: shutil.copy(f / NAMES[0], f / "stray.png"), "no dataset.json, so no labels"),
        (lambda f: [shutil.rmtree(f / c) for c in ("n2", "n10")], "holds no images"),
        (lambda f: (f / "dataset.json").write_text('{"labels": [["n2/2_0.png", 0]]}'), "has no label for"),
    ],
)
def test_sources_that_cannot_be_used(folder, tmp_path, break_it, message):
    break_it(folder)
    with pytest.raises(RunError, match=message):
        run(folder, tmp_path / "out.zip")
    assert not list(tmp_path.glob("*out.zip*"))


def test_options_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(RunError, match=r"must end in \.zip"):
        run(folder, tmp_path / "out")
    with pytest.raises(RunError, match="--resolution must be at least 1, not 0"):
        run(folder, tmp_path / "out.zip", resolution=0)
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b" + b"\0" * 600)
    with pytest.raises(RunError, match=r"a.tar.gz was cut short, or is damaged"):
        run(tmp_path / "a.tar.gz", tmp_path / "out.zip")


def test_the_door_writes_once_and_asks_for_a_name(folder, tmp_path, capsys):
    arguments = [str(folder), str(tmp_path / "out.zip"), "--resolution", "16", "--verify"]
    assert door.main(arguments) == 0
    assert "10 images." in capsys.readouterr().out
    assert door.main(arguments) == 0
    assert "is there; remove it" in capsys.readouterr().out
    assert door.main([str(folder)]) == 1
    assert "error: name the data set to write" in capsys.readouterr().err
    labels = json.loads(zipfile.ZipFile(tmp_path / "out.zip").read("dataset.json"))["labels"]
    assert labels[0] == ["00000/img00000000.png", 0] and len(labels) == 10
    assert PIL.Image.open(io.BytesIO(zipfile.ZipFile(tmp_path / "out.zip").read(labels[0][0]))).size == (
        16,
        16,
    )


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.robust("classes")
def test_class_names_are_printed_and_kept(folder, tmp_path, kind, capsys):
    """Numbers, names and counts are printed, and the names go into dataset.json and on from there."""
    out = run(as_source(folder, kind), tmp_path / "out.zip")
    assert "10 images, 2 classes: 0 n10 (5), 1 n2 (5)." in capsys.readouterr().out
    with zipfile.ZipFile(out) as archive:
        said = json.loads(archive.read("dataset.json"))
    assert list(said) == ["labels", "class_names", "prepared"]  # EDM2 reads the first
    assert said["class_names"] == ["n10", "n2"]
    assert open_dataset(out).class_names == ["n10", "n2"]
    again = run(out, tmp_path / "again.zip", mirror=True)  # from a dataset.json: they are handed on
    assert open_dataset(again).class_names == ["n10", "n2"]


@pytest.mark.robust("classes")
def test_classes_of_parts(folder, tmp_path, capsys):
    """--within takes the classes of one part, --class-level those of all together."""
    (tmp_path / "all").mkdir()
    for part in ("train", "val"):
        shutil.copytree(folder, tmp_path / "all" / part)
    arguments = [str(tmp_path / "all"), str(tmp_path / "out.zip"), "--resolution", "16"]
    assert door.main(arguments) == 1
    assert "--within train; of all of them together: --class-level 2; " in capsys.readouterr().err
    assert door.main([*arguments, "--within", "val", "--verify"]) == 0
    assert capsys.readouterr().out.count("2 classes: 0 n10 (5), 1 n2 (5).") == 2
    assert door.main([arguments[0], str(tmp_path / "both.zip"), *arguments[2:], "--class-level", "2"]) == 0
    assert "20 images, 2 classes: 0 n10 (10), 1 n2 (10)." in capsys.readouterr().out
    with pytest.raises(RunError, match="--class-level must be at least 1, not 0"):
        run(tmp_path / "all", tmp_path / "c.zip", class_level=0)


@pytest.mark.robust("pixels")
def test_what_was_done_to_images_is_said(tmp_path, capsys):
    """Rotation not applied, deep grey and large enlargement are noted, with how many and one of them."""
    folder = tmp_path / "set"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (20, 40)).save(folder / "a" / "turned.jpg", exif=exif)
    PIL.Image.fromarray(np.full((20, 20), 4095, np.uint16)).save(folder / "a" / "deep.png")
    PIL.Image.new("RGB", (2, 9)).save(folder / "b" / "small.png")
    PIL.Image.new("RGB", (9, 9)).save(folder / "b" / "larger.png")  # less than twice
    dataset = open_dataset(run(folder, tmp_path / "out.zip"))
    said = capsys.readouterr().out
    assert "note: 1 image with an EXIF rotation that is not applied" in said and "a/turned.jpg" in said
    assert "note: 1 image in grey of more than 8 bits" in said and "4,095 is the brightest" in said
    assert (
        "note: 1 image of at most half the resolution, enlarged 8.0 times at most (such as b/small.png)"
        in said
    )
    assert dataset.images([0])[0, :, 0, 0].tolist() == [16, 16, 16]  # 4095 / 257
    run(folder, tmp_path / "upright.zip", exif_rotation=True)
    assert "EXIF" not in capsys.readouterr().out


@pytest.mark.robust("classes")
def test_many_classes_are_told_of_in_short():
    """The first and the last are named, with the spread of counts."""
    labels = np.repeat(np.arange(1000), 2)
    text = class_counts(labels[1:], [f"n{i:03}" for i in range(1000)])
    assert text.startswith("1,000 classes, 1 to 2 images each: 0 n000 (1), 1 n001 (2), ")
    assert text.endswith(", ..., 998 n998 (2), 999 n999 (2)") and len(text) < 300
    assert class_counts(np.array([0, 2, 2]), ["0", "1", "2"]) == "3 classes: 0 (1), 1 (0), 2 (2)"
