"""Images as they come to an EDM2 data set: which, in what order, under which labels; whole or not at all."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mclr_fast import prepare as door
from mclr_fast.config import PrepareConfig
from mclr_fast.data import open_dataset
from mclr_fast.data import prepare as prepare_data
from mclr_fast.data.crop import center_crop_dhariwal
from mclr_fast.data.partial_zip import PartialZip
from mclr_fast.data.sources import Source
from mclr_fast.data.sources.class_counts import class_counts
from mclr_fast.models.vae import VAEEncoder
from mclr_fast.runtime.errors import Interrupted, RunError

RESOLUTION = 16
CPU = torch.device("cpu")
NAMES = [f"n{c}/{c}_{i}.{'JPEG' if i else 'png'}" for c in (2, 10) for i in range(5)]  # "n10" before "n2"


@pytest.fixture
def folder(tmp_path):
    """Ten images of several sizes, formats and modes in two class folders."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(rng.integers(0, 256, (20 + 3 * i, 40 - i, 3), np.uint8))
        image.convert(["RGB", "L", "CMYK"][i % 3] if i % 5 else "RGB").save(path)
    return tmp_path / "train"


def as_source(folder, kind):
    """The same images as a folder, a zip, a tar, or a tar of a tar for every class."""
    if kind == "folder":
        return folder
    if kind == "tars":
        path = folder.with_suffix(".tar")
        with tarfile.open(path, "w") as outer:
            for name in ("n2", "n10"):
                inner = shutil.make_archive(folder.parent / name, "tar", folder / name)
                outer.add(inner, f"{name}.tar")
        return path
    return Path(shutil.make_archive(folder, kind, folder))


class Stop:
    """A stop request that arrives at some look at it."""

    def __init__(self, at=0):
        self.looks, self.at = 0, at

    def check(self):
        self.looks += 1
        if self.looks == self.at:
            raise Interrupted


def run(source, out, stop=None, **options):
    options = {"resolution": RESOLUTION, "threads": 2, **options}
    config = PrepareConfig(source=source, out=out, **options)
    encoder = (lambda: VAEEncoder(config.latents, CPU)) if config.latents else None
    prepare_data.prepare(config, encoder, stop or Stop())
    return out


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(prepare_data, "CHUNK", 3)


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


@pytest.mark.parametrize("latents", [False, True])
def test_stopped_and_resumed(folder, tmp_path, tiny_vae, small_chunks, latents):
    options = {"latents": str(tiny_vae)} if latents else {}
    whole = run(folder, tmp_path / "whole.zip", **options)
    out = tmp_path / "stopped.zip"
    for at in (2, 3):
        with pytest.raises(Interrupted):
            run(folder, out, Stop(at), **options)
        assert not out.exists()
    last = Stop()
    run(folder, out, last, **options)
    assert last.looks == 1  # of four chunks, three were there: one, then two more
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.robust("processes")
def test_killed_anywhere_and_resumed(folder, tmp_path, small_chunks, monkeypatch):
    """Whatever part of the file reached the disk, also with a damaged end, the result is the same."""
    whole = run(folder, tmp_path / "whole.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        sizes = [member.header_offset for member in archive.infolist()]
    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(PartialZip, "finish", PartialZip.pause)
        run(folder, tmp_path / "out.zip")
    (partial,) = tmp_path.glob(".out.zip.*.partial")
    shutil.copy(partial, kept)
    assert kept.stat().st_size > sizes[-1]
    for cut in (
        0,
        1,
        29,
        sizes[1],
        sizes[4] + 40,
        sizes[9] - 1,
        sizes[10],
        sizes[10] + 20,
        kept.stat().st_size,
    ):
        for damage in (b"", b"\0" * 50):
            partial.write_bytes(kept.read_bytes()[: max(cut - len(damage), 0)] + damage)
            assert run(folder, tmp_path / "out.zip").read_bytes() == whole
            (tmp_path / "out.zip").unlink()


@pytest.mark.robust("identity")
def test_other_settings_begin_anew(folder, tmp_path, small_chunks):
    """What was begun with other settings is left for them."""
    for options in ({}, {"mirror": True}):
        with pytest.raises(Interrupted):
            run(folder, tmp_path / "out.zip", Stop(2), **options)
    assert len(list(tmp_path.glob(".out.zip.*.partial"))) == 2


@pytest.mark.robust("processes")
def test_two_processes_do_not_write_one_file(tmp_path):
    """The second is refused until the first is done."""
    first = PartialZip(tmp_path / "a.zip", "key")
    with pytest.raises(ValueError, match="another process is writing"):
        PartialZip(tmp_path / "a.zip", "key")
    first.pause()
    PartialZip(tmp_path / "a.zip", "key").pause()


@pytest.mark.robust("pixels")
def test_a_damaged_image_ends_it_or_is_left_out(folder, tmp_path, small_chunks, capsys):
    """An error names it; with --skip-damaged it is left out, and counted."""
    bad = sorted(NAMES)[4]
    (folder / bad).write_bytes((folder / bad).read_bytes()[:200])
    with pytest.raises(RunError, match=f"{bad}' cannot be read .*--skip-damaged") as caught:
        run(folder, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists() and "\n" not in str(caught.value)
    dataset = open_dataset(run(folder, tmp_path / "out.zip", skip_damaged=True))
    assert dataset.labels.tolist() == [0] * 4 + [1] * 5
    assert "9 images, 1 damaged left out" in capsys.readouterr().out


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


@pytest.mark.robust("pixels")
def test_verify_counts_what_is_there_and_names_what_is_damaged(folder, tmp_path, capsys):
    """--verify decodes every image; the first damaged one is an error."""
    out = run(folder, tmp_path / "img16.zip", verify=True)
    assert "10 images of 3x16x16, 2 of 2 classes, 5 to 5 images a class" in capsys.readouterr().out
    data = bytearray(out.read_bytes())
    data[-1500] ^= 1  # within the last image
    out.write_bytes(data)
    with pytest.raises(RunError, match=r"00000009.png' cannot be read .*"):
        run(out, None, verify=True)


def test_verify_counts_what_cannot_be_used(tmp_path):
    for i in range(40):
        path = tmp_path / "set" / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 4) if i not in (8, 9) else (4, 5)).save(path)
    with pytest.raises(RunError, match=r"has shape .* \(2 of 40 images cannot be used\)"):
        run(tmp_path / "set", None, verify=True)


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
def test_damaged_images_do_not_move_classes(folder, tmp_path, capsys):
    """Classes are numbered before damaged images are left out; an empty one is told of."""
    for image in (folder / "n10").iterdir():
        image.write_bytes(b"<html>404</html>")
    with pytest.raises(RunError, match=r"'n10/10_0.png' cannot be read \(it is a page of HTML"):
        run(folder, tmp_path / "out.zip")
    dataset = open_dataset(run(folder, tmp_path / "out.zip", skip_damaged=True))
    assert dataset.labels.tolist() == [1] * 5 and dataset.class_names == ["n10", "n2"]
    said = capsys.readouterr().out
    assert "5 damaged left out ('n10/10_0.png' cannot be read (it is a page of HTML" in said
    assert "2 classes: 0 n10 (0), 1 n2 (5)." in said and "no image is of class 0 n10" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 32}, "resolution 16, not 32"),
        ({"mirror": True}, "mirror False, not True"),
        ({"exif_rotation": True}, "exif_rotation False, not True"),
        ({"latents": "some/vae"}, "latents None, not 'vae'"),
        ({"resolution": 8, "mirror": True}, "resolution 16, not 8; mirror False, not True"),
    ],
)
@pytest.mark.robust("identity")
def test_an_out_that_was_made_otherwise_is_not_taken_for_done(folder, tmp_path, options, message):
    """An error names the options that differ; the file stays."""
    before = run(folder, tmp_path / "out.zip").read_bytes()
    with pytest.raises(RunError, match=rf"out.zip is there, and was made otherwise \({message}\): remove it"):
        run(folder, tmp_path / "out.zip", **options)
    assert (tmp_path / "out.zip").read_bytes() == before


@pytest.mark.robust("identity")
def test_an_out_of_another_source_is_not_taken_for_done(folder, tmp_path, capsys):
    """Of the same images kept otherwise it is done; of others it is an error."""
    out = run(folder, tmp_path / "out.zip")
    run(as_source(folder, "zip"), out)  # the same images, kept otherwise
    assert "is there; remove it" in capsys.readouterr().out
    shutil.copy(folder / NAMES[0], folder / "n2" / "more.png")
    with pytest.raises(RunError, match="of images of another SOURCE"):
        run(folder, out)
    shutil.rmtree(folder)
    run(folder, out)  # done with, and gone
    with pytest.raises(RunError, match="resolution 16, not 8"):
        run(folder, out, resolution=8)


@pytest.mark.robust("identity")
def test_an_out_by_edm2s_tool_is_judged_by_its_images(golden, folder, tmp_path, capsys):
    """Its resolution and whether it is of latents are compared."""
    for name, options in (("rgb", {"resolution": 8}), ("latents", {"latents": "some/vae", "resolution": 32})):
        out = tmp_path / f"{name}.zip"
        out.write_bytes(golden("edm2_dataset")[f"{name}/zip_bytes"].tobytes())
        run(folder, out, **options)
        assert "is there; remove it" in capsys.readouterr().out
    with pytest.raises(RunError, match="resolution 8, not 16"):
        run(folder, tmp_path / "rgb.zip")
    with pytest.raises(RunError, match="latents 'some VAE', not None"):
        run(folder, tmp_path / "latents.zip", resolution=32)
    (tmp_path / "junk.zip").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"junk.zip is not a zip archive"):
        run(folder, tmp_path / "junk.zip")


@pytest.mark.robust("identity")
def test_a_source_that_changed_meanwhile_begins_anew(folder, tmp_path, small_chunks):
    """What was made of the images before is not gone on with."""
    with pytest.raises(Interrupted):
        run(folder, tmp_path / "out.zip", Stop(3))
    PIL.Image.new("RGB", (40, 40), (1, 2, 3)).save(folder / sorted(NAMES)[0])  # under the same name
    first = open_dataset(run(folder, tmp_path / "out.zip")).images([0])[0]
    assert first[:, 0, 0].tolist() == [1, 2, 3]


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


@pytest.mark.robust("identity")
def test_out_may_lie_in_the_source(folder, capsys):
    """The data set that is made is none of its own images, at the first call and at any other."""
    first = run(folder, folder / "img16.zip").read_bytes()
    assert run(folder, folder / "img16.zip").read_bytes() == first
    assert "is there; remove it" in capsys.readouterr().out
    assert open_dataset(run(folder, folder / "img8.zip", resolution=8)).labels.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "I/O"), MemoryError()]
)
@pytest.mark.robust("file systems")
def test_what_the_machine_fails_at_is_not_left_out_as_damaged(folder, tmp_path, monkeypatch, error):
    """A failing disk, missing rights or memory end it, with --skip-damaged too."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Source, "read", fail)
    with pytest.raises(RunError, match=rf"'n10/10_0.png' cannot be read \({type(error).__name__}.*\)\.$"):
        run(folder, tmp_path / "out.zip", skip_damaged=True)


@pytest.mark.robust("pixels")
def test_pixels_of_no_known_range_end_it_or_are_left_out(folder, tmp_path, capsys):
    """An error names the image; --skip-damaged leaves it out."""
    PIL.Image.fromarray(np.zeros((20, 20), np.float32)).save(folder / "n2" / "0.tif")
    with pytest.raises(RunError, match=r"'n2/0.tif' cannot be read \(its pixels are floating point"):
        run(folder, tmp_path / "out.zip")
    run(folder, tmp_path / "out.zip", skip_damaged=True)
    assert "1 damaged left out ('n2/0.tif' cannot be read (its pixels are floating" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.robust("pixels")
def test_latents_that_are_not_finite_fail_verify(tmp_path, value, as_zip):
    """--verify names the first, in folders and zips."""
    for i in range(40):
        latent = np.ones((8, 2, 2), np.float32)
        latent[7, 1, 1] = value if i == 6 else 1  # not looked at on opening
        path = tmp_path / "set" / f"c{i % 2}" / f"{i:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, latent)
    path = tmp_path / "set"
    path = Path(shutil.make_archive(path, "zip", path)) if as_zip else path
    with pytest.raises(RunError, match=r"'c0/06.npy' holds numbers that are not finite \(1 of 40"):
        run(path, None, verify=True)


@pytest.mark.robust("pixels")
def test_latents_that_the_vae_cannot_make_are_not_written(folder, tmp_path):
    """Latents that are not finite are an error, and nothing is written."""
    config = PrepareConfig(source=folder, out=tmp_path / "out.zip", resolution=16, threads=1)
    encoder = lambda images: np.full((len(images), 8, 2, 2), np.nan, np.float32)  # noqa: E731
    with pytest.raises(RunError, match="latents of image 0 are not finite"):
        prepare_data.prepare(config, lambda: encoder, Stop())
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.robust("classes")
def test_many_classes_are_told_of_in_short():
    """The first and the last are named, with the spread of counts."""
    labels = np.repeat(np.arange(1000), 2)
    text = class_counts(labels[1:], [f"n{i:03}" for i in range(1000)])
    assert text.startswith("1,000 classes, 1 to 2 images each: 0 n000 (1), 1 n001 (2), ")
    assert text.endswith(", ..., 998 n998 (2), 999 n999 (2)") and len(text) < 300
    assert class_counts(np.array([0, 2, 2]), ["0", "1", "2"]) == "3 classes: 0 (1), 1 (0), 2 (2)"
