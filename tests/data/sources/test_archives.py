"""Zips and tars, in each other and in folders, with links, whole or not."""

import io
import os
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest
from kept import AS_PETS, classes, dataset_json, opened, pets, png, write_tar, write_zip

from mclr_fast.data import open_dataset


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["cat/0.png", "./cat/0.png", "cat\\0.png", "dataset.json"])
@pytest.mark.robust("archives")
def test_a_name_twice_in_a_zip(tmp_path, second):
    """It is an error that names it, however it is written the second time."""
    labels = dataset_json([["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1]])
    files = [
        *pets().items(),
        ("dataset.json", labels),
        (second, png(8) if second != "dataset.json" else labels),
    ]
    with pytest.raises(ValueError, match=r"holds '(cat/0.png|dataset.json)' twice"):
        _ = opened(write_zip(tmp_path / "a.zip", files)).classes


@pytest.mark.robust("archives")
def test_a_later_member_of_a_tar_replaces_the_earlier(tmp_path):
    """The later one counts, as when it is unpacked, and a note names it."""
    with tarfile.open(write_tar(tmp_path / "a.tar", pets()), "a") as archive:
        info = tarfile.TarInfo("./cat/0.png")
        info.size = len(png(9))
        archive.addfile(info, io.BytesIO(png(9)))
    source = opened(tmp_path / "a.tar")
    assert classes(source) == AS_PETS and bytes(source.read("cat/0.png")) == png(9)
    assert source.notes == ["there twice, of which the last counts, as in any tar: cat/0.png"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.robust("archives")
def test_links_in_archives_are_followed(tmp_path, kind):
    """They give what they lead to: a file, a folder, a link, what is hidden; in a tar hard links do too."""
    links = {
        "cat/1.png": "0.png",
        "dog": "store/hounds",
        "owl/0.png": "../cat/1.png",
        "owl/1.png": "../.annex/x",
    }
    files = {"set/cat/0.png": png(1), "set/store/hounds/0.png": png(2), "set/.annex/x": png(3)}
    path = tmp_path / "set"
    if kind == "zip":
        with zipfile.ZipFile(write_zip(path, files.items()), "a") as archive:
            for name, target in links.items():
                info = zipfile.ZipInfo(f"set/{name}")
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, target)
    else:
        with tarfile.open(path, "w") as archive:
            for name, target in links.items():  # before what they lead to
                info = tarfile.TarInfo(f"./set/{name}")
                info.type, info.linkname = tarfile.SYMTYPE, target
                archive.addfile(info)
            hard = tarfile.TarInfo("./set/owl/2.png")
            hard.type, hard.linkname = tarfile.LNKTYPE, "./set/cat/0.png"
            archive.addfile(hard)
            for name, data in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with pytest.raises(ValueError, match="'set/dog' and 'set/store/hounds' are the same folder"):
        _ = opened(path).classes
    source = opened(path, within="set")
    values = {
        name: np.asarray(PIL.Image.open(io.BytesIO(source.read(name))))[0, 0, 0] for name in source.names
    }
    assert values == {
        **{"cat/0.png": 1, "cat/1.png": 1, "dog/0.png": 2, "store/hounds/0.png": 2},
        **{"owl/0.png": 1, "owl/1.png": 3},
        **({"owl/2.png": 1} if kind == "tar" else {}),
    }


@pytest.mark.robust("archives")
def test_links_in_archives_that_lead_nowhere(tmp_path):
    """An image that is one is a damaged image, which --skip-damaged leaves out; any other is an error."""
    with tarfile.open(write_tar(tmp_path / "a.tar", pets()), "a") as archive:
        for name, target in (("cat/2.png", "gone.png"), ("cat/self.png", "self.png"), ("dog/up", "../..")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    source = opened(tmp_path / "a.tar")
    assert source.names == ["cat/0.png", "cat/1.png", "cat/2.png", "cat/self.png", "dog/0.png"]
    for name in ("cat/2.png", "cat/self.png"):  # as damaged images, which --skip-damaged leaves out
        with pytest.raises(ValueError, match=r"it is a link to .*which is not there"):
            source.read(name)
    with pytest.raises(ValueError, match=r"'dog/up' is a link to"):
        _ = source.classes


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
@pytest.mark.parametrize("outer", ["folder", "zip", "tar"])
@pytest.mark.robust("archives")
def test_an_archive_for_every_class(tmp_path, suffix, outer):
    """In a folder, a zip or a tar each inner archive is the class of its name."""
    mode = {".tar": "w", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.get(suffix, "w:gz")
    (tmp_path / "set").mkdir()
    for name, files in (("cat", {"0.png": png(0), "1.png": png(1)}), ("dog", {"0.png": png(2)})):
        path = tmp_path / "set" / f"{name}{suffix}"
        write_zip(path, files.items()) if suffix == ".zip" else write_tar(path, files, mode=mode)
    path = tmp_path / "set"
    if outer != "folder":
        path = shutil.make_archive(path, outer, path)
    source = opened(tmp_path / os.path.basename(path))
    assert classes(source) == AS_PETS
    assert [np.asarray(PIL.Image.open(io.BytesIO(source.read(n))))[0, 0, 0] for n in source.names] == [
        0,
        1,
        2,
    ]


@pytest.mark.robust("archives")
def test_archives_beside_images_are_not_passed_over(make):
    """An error names them: unpack them or move them."""
    path = make(pets() | {"owl.tar": b"", "archive.zip": b""})
    with pytest.raises(
        ValueError, match=r"archives beside them: archive.zip, owl.tar; unpack those, or move"
    ):
        _ = opened(path).classes


@pytest.mark.robust("archives")
def test_data_sets_beside_images_are_no_classes(make):
    """What `prepare` made of a folder may lie in it: it is left aside, and a note names it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("dataset.json", b"{}")
    source = opened(make(pets() | {"pets64.zip": file.getvalue()}))
    assert classes(source) == AS_PETS
    assert source.notes == ["left aside, no images by their suffix: pets64.zip"]


@pytest.mark.robust("archives")
def test_archives_are_known_by_content(tmp_path):
    """A tar called .zip, a zip called .tar, and either without a suffix are read."""
    for name, path in (
        ("a.zip", write_tar(tmp_path / "a.zip", pets())),
        ("b.tar", write_zip(tmp_path / "b.tar", pets().items())),
        ("c", write_tar(tmp_path / "c", pets("PK\u0003a/"), mode="w")),
        ("BZh.bin", write_tar(tmp_path / "d", pets("BZh/"), mode="w")),
    ):
        assert classes(opened(path)) == AS_PETS, name


@pytest.mark.robust("archives")
def test_training_does_not_unpack(tmp_path):
    """What is compressed as a whole is refused in training, with the door that makes a data set of it."""
    path = write_tar(tmp_path / "a.tgz", pets(), mode="w:gz")
    with pytest.raises(ValueError, match=r"compressed as a whole.*mclr_fast.prepare makes a data set of it"):
        open_dataset(path)
    assert open_dataset(write_tar(tmp_path / "a.tar", pets())).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "page of HTML"),
        (b"<?xml version='1.0'?><Error>", "page of HTML or XML"),
        (b"7z\xbc\xaf\x27\x1c\0\0", "a 7z archive"),
        (b"PAR1....", "a Parquet file"),
        (b"", "empty"),
        (b"\0" * 2000, "nothing but zeros"),
        (b"\x28\xb5\x2f\xfd....", "a zstd file"),
    ],
)
@pytest.mark.robust("wrappers")
def test_what_is_no_archive_is_told_what_it_is(tmp_path, contents, what):
    """One line says what it is: a git-lfs pointer, a page of HTML, another program's archive, zeros."""
    (tmp_path / "img64.zip").write_bytes(contents)
    with pytest.raises(ValueError, match=f"img64.zip is not a zip archive, nor a tar: it is .*{what}"):
        open_dataset(tmp_path / "img64.zip")


@pytest.mark.robust("archives")
def test_tars_that_end_early_or_go_on(tmp_path):
    """A tar that was cut, joined or damaged is an error; one without an end mark is read, with a note."""
    whole = write_tar(tmp_path / "a.tar", pets()).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(ValueError, match=r"cut.tar was cut short, or is damaged"):
        opened(tmp_path / "cut.tar")
    (tmp_path / "joined.tar").write_bytes(whole + whole)
    with pytest.raises(ValueError, match=r"after 3 members comes what is none.*several were joined"):
        opened(tmp_path / "joined.tar")
    damaged = bytearray(whole)
    damaged[1024 + 100] ^= 255  # in the second member's header
    (tmp_path / "damaged.tar").write_bytes(damaged)
    with pytest.raises(ValueError, match="after 1 members comes what is none"):
        opened(tmp_path / "damaged.tar")
    (tmp_path / "open.tar").write_bytes(whole[: 3 * 1024])
    assert "without a tar's end mark" in opened(tmp_path / "open.tar").notes[0]


@pytest.mark.robust("archives")
def test_names_in_utf8_without_the_flag_that_says_so(tmp_path):
    """They are read as UTF-8, as macOS's Finder writes them."""
    path = write_zip(tmp_path / "a.zip", {"XXXX/0.png": png(), "b/0.png": png()}.items())
    path.write_bytes(path.read_bytes().replace(b"XXXX", "\u00e9\u00e9".encode()))
    assert opened(path).classes.names == ["b", "\u00e9\u00e9"]


@pytest.mark.robust("file systems")
def test_a_zip_cut_short_while_it_is_read_is_an_error(tmp_path):
    """It is an error with the image's name; no process dies of it."""
    path = write_zip(tmp_path / "a.zip", pets().items())
    dataset = open_dataset(path)
    os.truncate(path, 100)
    with pytest.raises(
        ValueError, match=r"'dog/0.png' cannot be read \(the archive is damaged there, or was cut"
    ):
        dataset.images([2])


@pytest.mark.parametrize("size", [100, 1 << 16])  # read with their header, and apart from it
@pytest.mark.robust("file systems")
def test_members_are_whole_or_refused(tmp_path, size):
    """Of an archive that ends in the middle of a member no part of that is given out."""
    data = os.urandom(size)
    path = write_zip(tmp_path / "a.zip", {"cat/0.png": png(), "dog/0.png": data}.items())
    source = opened(path)
    assert source.view("dog/0.png") == source.read("dog/0.png") == data
    os.truncate(path, path.read_bytes().index(data) + size - 1)
    with pytest.raises(ValueError, match="damaged there, or was cut short"):  # also without its checksum
        source.view("dog/0.png")


@pytest.mark.parametrize("size", [100, 1 << 16])
def test_members_whose_headers_have_more_fields(tmp_path, size):
    data = os.urandom(size)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in (("cat/0.png", png()), ("dog/0.png", data)):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    source = opened(tmp_path / "a.zip")
    assert source.view("dog/0.png") == source.read("dog/0.png") == data


@pytest.mark.robust("archives")
def test_folders_in_an_archive_that_link_to_each_other(tmp_path):
    """Each is followed once, and that they are the same folder is an error."""
    with tarfile.open(write_tar(tmp_path / "a.tar", pets()), "a") as archive:
        for name, target in (("cat/friend", "../dog"), ("dog/friend", "../cat")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    source = opened(tmp_path / "a.tar")
    assert {"cat/friend/0.png", "dog/friend/0.png"} < set(source.names) and len(source.names) < 20
    with pytest.raises(ValueError, match="are the same folder"):
        _ = source.classes
